//! What catch-up connections are made of: streams of bytes that never block. TCP as it is, or with something around it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// One connection. Reading and writing never block: `WouldBlock` until its descriptor says that there is more.
pub trait LaneStream: Read + Write + AsFd + Send {}

impl<S: Read + Write + AsFd + Send> LaneStream for S {}

/// How a node is dialled, and dials others.
pub trait LaneNet: Send {
    /// Becomes readable when somebody dials.
    fn listener(&self) -> BorrowedFd<'_>;
    /// The next connection that somebody dialled, and from where if that can be told. `WouldBlock`: there is none.
    ///
    /// # Errors
    /// The host's.
    fn accept(&mut self) -> io::Result<(Box<dyn LaneStream>, Option<IpAddr>)>;
    /// Begins to dial. That it failed may be seen only when the connection is used.
    ///
    /// # Errors
    /// The host's.
    fn connect(&mut self, to: SocketAddr) -> io::Result<Box<dyn LaneStream>>;
}

/// Plain TCP.
#[derive(Debug)]
pub(in crate::runtime) struct TcpLane {
    listener: TcpListener,
    own: IpAddr,
}

impl TcpLane {
    /// Listens at `address`; dials from its IP address, by which the others know this node.
    pub(in crate::runtime) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, own: address.ip() })
    }
}

impl LaneNet for TcpLane {
    fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    fn accept(&mut self) -> io::Result<(Box<dyn LaneStream>, Option<IpAddr>)> {
        let (stream, from) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), Some(from.ip())))
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Box<dyn LaneStream>> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if to.is_ipv4() == self.own.is_ipv4() {
            socket.bind(&SocketAddr::new(self.own, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Box::new(TcpStream::from(socket)))
    }
}
