//! The receive ring: buffers that the host fills, many per call, and an index of the datagrams in them.
//!
//! With receive offload one buffer may hold a run of datagrams of equal length, so a buffer is not a datagram: the index is.
//! All memory is made at construction and never moves, because the host is given pointers to it.
#![allow(unsafe_code)]

use core::mem::{size_of, zeroed};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::ptr::{NonNull, null_mut};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::udp::NetworkCounters;
use crate::stream::datagram::{DATAGRAM_MAGIC, DatagramHeader};
use crate::types::NodeId;
use zerocopy::FromBytes;

/// Bytes of a buffer that takes runs of datagrams: the largest UDP payload there is.
pub(super) const RUN_BYTES: usize = 65_536;
/// Datagrams that the host puts into one run, at most.
const RUN_DATAGRAMS_MAX: usize = 128;
/// Added to the stride of the buffers, so that their first bytes do not all compete for the same cache sets.
const STRIDE_SKEW_BYTES: usize = 192;
/// Room for one control message with an `int`: the length of a run's datagrams.
const CONTROL_BYTES: usize = 24;
/// `UDP_GRO`, the option and its control message (`linux/udp.h`).
pub(super) const UDP_GRO: i32 = 104;

/// A run of buffers for one socket.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Heap<u8>,
    stride: usize,
    names: Heap<libc::sockaddr_in6>,
    controls: Heap<Control>,
    headers: Heap<libc::mmsghdr>,
    // Keeps alive what `headers` points to.
    _vectors: Heap<libc::iovec>,
    sources: Box<[SocketAddr]>,
    pieces: Vec<Piece>,
    /// Headers that the last call used, and that must be reset before the next.
    used: usize,
    /// Buffers to offer to the next call: one while datagrams come singly, since asking in vain for a second one costs as much
    /// as an empty poll (measured: 0.1 to 0.2 us of each round trip); more and more while all that are offered are filled.
    offered: usize,
    offload: bool,
}

/// Where one datagram lies.
#[derive(Clone, Copy, Debug)]
struct Piece {
    slot: u32,
    offset: u32,
    length: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Ring {
    /// `slots` buffers of `slot_bytes` each; with `offload`, of a whole run each.
    pub(super) fn new(slots: usize, slot_bytes: usize, offload: bool) -> Self {
        assert!(slots > 0 && slot_bytes > 0, "an empty ring receives nothing");
        let slot_bytes = if offload { RUN_BYTES } else { slot_bytes };
        let stride = slot_bytes.next_multiple_of(64) + STRIDE_SKEW_BYTES;
        let bytes = Heap::new(vec![0_u8; stride * slots]);
        // SAFETY: both are plain C structures of integers, for which zeros are a value.
        let names = Heap::new(vec![unsafe { zeroed::<libc::sockaddr_in6>() }; slots]);
        let controls = Heap::new(vec![Control([0; CONTROL_BYTES]); slots]);
        let vectors = (0..slots)
            .map(|n| libc::iovec {
                iov_base: bytes.pointer(n * stride).cast(),
                iov_len: slot_bytes,
            })
            .collect();
        let vectors = Heap::new(vectors);
        let headers = (0..slots)
            .map(|n| {
                // SAFETY: a plain C structure of integers and pointers, for which zeros are a value.
                let mut header = unsafe { zeroed::<libc::mmsghdr>() };
                header.msg_hdr.msg_name = names.pointer(n).cast();
                header.msg_hdr.msg_iov = vectors.pointer(n);
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control =
                    if offload { controls.pointer(n).cast() } else { null_mut() };
                header
            })
            .collect();
        let nowhere = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        Self {
            bytes,
            stride,
            names,
            controls,
            headers: Heap::new(headers),
            _vectors: vectors,
            sources: vec![nowhere; slots].into_boxed_slice(),
            pieces: Vec::with_capacity(slots * if offload { RUN_DATAGRAMS_MAX } else { 1 }),
            used: slots,
            offered: 1,
            offload,
        }
    }

    /// Datagrams of the last batch.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// One of them.
    pub(super) fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let piece = self.pieces[index];
        (self.sources[piece.slot as usize], self.slice(piece))
    }

    /// Takes what waits in `socket`. Datagrams of the node `own` are its own ones, looped back: they are dropped.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        own: Option<NodeId>,
        counters: &mut NetworkCounters,
    ) -> usize {
        self.reset();
        counters.receive_calls += 1;
        // SAFETY: the headers, and all that they point to, are owned by `self`, live as long as it and are not borrowed now;
        // their lengths were set by `new` and `reset`.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.pointer(0),
                self.offered as u32,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        let Ok(filled) = usize::try_from(received) else {
            self.offered = 1;
            count_failure(counters);
            return 0;
        };
        self.used = filled;
        let full = filled == self.offered;
        self.offered = if full { (4 * filled).min(self.headers.length) } else { 1 };
        for slot in 0..filled {
            self.index(slot, own, counters);
        }
        self.pieces.len()
    }

    fn reset(&mut self) {
        self.pieces.clear();
        for slot in 0..self.used {
            let header = self.headers.get_mut(slot);
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
            header.msg_hdr.msg_controllen = if self.offload { CONTROL_BYTES } else { 0 };
        }
        self.used = 0;
    }

    /// Enters the datagrams of one filled buffer into the index.
    fn index(&mut self, slot: usize, own: Option<NodeId>, counters: &mut NetworkCounters) {
        let header = self.headers.get(slot);
        let filled = header.msg_len;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            counters.truncated += 1;
            return;
        }
        let Some(source) = address(self.names.get(slot)) else {
            counters.receive_failures += 1;
            return;
        };
        self.sources[slot] = source;
        let each = if self.offload { self.run_length(slot).unwrap_or(filled) } else { filled };
        let mut offset = 0;
        loop {
            let length = each.min(filled - offset);
            let piece = Piece { slot: slot as u32, offset, length };
            if self.pieces.len() == self.pieces.capacity() {
                counters.truncated += 1;
                return;
            }
            if own.is_some_and(|own| is_from(self.slice(piece), own)) {
                counters.own_dropped += 1;
            } else {
                counters.datagrams_received += 1;
                counters.bytes_received += u64::from(length);
                self.pieces.push(piece);
            }
            offset += length;
            if offset >= filled {
                return;
            }
        }
    }

    /// The length of the datagrams in a buffer, if the host put a run of them there.
    fn run_length(&self, slot: usize) -> Option<u32> {
        let given = self.headers.get(slot).msg_hdr.msg_controllen;
        let control = &self.controls.get(slot).0;
        let word = |at: usize| {
            let four = control.get(at..at + 4)?;
            Some(i32::from_ne_bytes(four.try_into().ok()?))
        };
        // A `cmsghdr` is a length of 8 bytes, a level and a type of 4 each; then the `int`.
        if given < 20 || word(8)? != libc::SOL_UDP || word(12)? != UDP_GRO {
            return None;
        }
        u32::try_from(word(16)?).ok().filter(|&each| each > 0)
    }

    fn slice(&self, piece: Piece) -> &[u8] {
        let start = piece.slot as usize * self.stride + piece.offset as usize;
        self.bytes.slice(start, piece.length as usize)
    }
}

fn is_from(bytes: &[u8], node: NodeId) -> bool {
    DatagramHeader::ref_from_prefix(bytes).is_ok_and(|(header, _)| {
        header.magic.get() == DATAGRAM_MAGIC && header.node() == Some(node)
    })
}

fn count_failure(counters: &mut NetworkCounters) {
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if code != libc::EAGAIN && code != libc::EINTR {
        counters.receive_failures += 1;
    }
}

/// The sender's address as the host wrote it.
fn address(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(name.sin6_addr.s6_addr),
            u16::from_be(name.sin6_port),
            0,
            name.sin6_scope_id,
        ))),
        // A `sockaddr_in` has its port where the other has it, and its address where the other has the flow.
        libc::AF_INET => Some(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::from(u32::from_be(name.sin6_flowinfo))),
            u16::from_be(name.sin6_port),
        )),
        _ => None,
    }
}

/// A slice on the heap to which the host holds pointers: it never moves, and is reached through its pointer only.
#[derive(Debug)]
struct Heap<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: it owns its elements, as a box does; the raw pointers within some of them point to other such slices of the same
// ring, which moves to another thread as a whole.
unsafe impl<T> Send for Heap<T> {}

impl<T> Heap<T> {
    fn new(elements: Vec<T>) -> Self {
        let slice = Box::leak(elements.into_boxed_slice());
        let length = slice.len();
        Self { start: NonNull::from(slice).cast(), length }
    }
    fn pointer(&self, index: usize) -> *mut T {
        assert!(index < self.length);
        // SAFETY: within the allocation, as just asserted.
        unsafe { self.start.as_ptr().add(index) }
    }
    fn get(&self, index: usize) -> &T {
        // SAFETY: valid and initialised; nobody writes while `self` is borrowed, since the host writes within a call that
        // borrows the ring mutably.
        unsafe { &*self.pointer(index) }
    }
    fn get_mut(&mut self, index: usize) -> &mut T {
        // SAFETY: as for `get`, and `self` is borrowed mutably.
        unsafe { &mut *self.pointer(index) }
    }
    fn slice(&self, start: usize, length: usize) -> &[T] {
        assert!(start <= self.length && length <= self.length - start);
        // SAFETY: `start` is within the allocation or its end.
        let first = unsafe { self.start.as_ptr().add(start) };
        // SAFETY: as for `get`, and within the allocation.
        unsafe { core::slice::from_raw_parts(first, length) }
    }
}

impl<T> Drop for Heap<T> {
    fn drop(&mut self) {
        let slice = core::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: this is what `Box::leak` gave in `new`; given back once.
        drop(unsafe { Box::from_raw(slice) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::datagram::DatagramKind;
    use crate::types::{GroupId, Leadership};
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use zerocopy::IntoBytes;

    fn pair() -> (UdpSocket, UdpSocket) {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        from.connect(to.local_addr().unwrap()).unwrap();
        (from, to)
    }

    #[test]
    fn what_waits_comes_in_order_and_no_more_than_the_ring_holds() {
        let (from, to) = pair();
        let (mut ring, mut counters) = (Ring::new(3, 256, false), NetworkCounters::default());
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 0);
        for n in 0..5_u8 {
            from.send(&vec![n; usize::from(n) * 10]).unwrap();
        }
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 1);
        assert_eq!(ring.datagram(0), (from.local_addr().unwrap(), &[][..]));
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 3);
        assert_eq!(ring.datagram(1).1, [2; 20]);
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 1);
        assert_eq!(ring.datagram(0).1, [4; 40]);
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 0);
        assert_eq!((ring.len(), counters.datagrams_received, counters.bytes_received), (0, 5, 100));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (from, to) = pair();
        let (mut ring, mut counters) = (Ring::new(2, 100, false), NetworkCounters::default());
        from.send(&[1; 101]).unwrap();
        from.send(&[2; 100]).unwrap();
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 0);
        assert_eq!(ring.receive(to.as_fd(), None, &mut counters), 1);
        assert_eq!((ring.datagram(0).1, counters.truncated), (&[2_u8; 100][..], 1));
    }

    #[test]
    fn own_datagrams_are_dropped_by_node() {
        let (from, to) = pair();
        let (mut ring, mut counters) = (Ring::new(4, 100, false), NetworkCounters::default());
        for node in [1, 2, 1] {
            let header = DatagramHeader::new(
                DatagramKind::Heartbeat,
                GroupId(7),
                Some(NodeId(node)),
                Leadership::default(),
            );
            from.send(header.as_bytes()).unwrap();
        }
        assert_eq!(ring.receive(to.as_fd(), Some(NodeId(1)), &mut counters), 0);
        assert_eq!(ring.receive(to.as_fd(), Some(NodeId(1)), &mut counters), 1);
        assert_eq!(counters.own_dropped, 2);
        assert_eq!(DatagramHeader::ref_from_bytes(ring.datagram(0).1).unwrap().node.get(), 2);
    }
}
