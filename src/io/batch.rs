//! Cuts bytes into datagrams and hands them to the host: straight from the caller's slices, runs of them in one call.
//!
//! A run is what segmentation offload (GSO) takes: datagrams of equal length, of which the last may be shorter. Where the host
//! or the path refuses it, the same datagrams go out one by one.

use std::io::{self, IoSlice};

use socket2::{MsgHdr, SockAddr, Socket};
use zerocopy::{Immutable, IntoBytes};

use super::udp::NetworkCounters;
use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::stream::datagram::{DatagramHeader, FLAG_PADS};

/// Datagrams that the host takes in one run, at most (`UDP_MAX_SEGMENTS` of the oldest kernels that know runs).
pub(super) const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes of one run, at most: the largest UDP payload over IPv6.
const RUN_BYTES_MAX: usize = 65_487;
/// Slices per datagram: header, prefix, body.
const SLICES: usize = 3;
/// `UDP_SEGMENT`, the option and its control message (`linux/udp.h`).
const UDP_SEGMENT: i32 = 103;

/// The sending half of a socket.
#[derive(Debug)]
pub(super) struct Batcher {
    headers: Box<[DatagramHeader]>,
    counter: u64,
    offload: bool,
    control: SegmentControl,
}

/// The control message that says how long the datagrams of a run are.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C, align(8))]
struct SegmentControl {
    length: u64,
    level: i32,
    kind: i32,
    segment: u16,
    rest: [u8; 6],
}

/// Datagrams that are ready to go: their numbered headers lie in the batcher.
pub(super) struct Run<'a> {
    prefix: &'a [u8],
    bytes: &'a [u8],
    /// Bytes of the body of each but the last.
    each: usize,
    datagrams: usize,
}

impl Batcher {
    /// With `offload`, runs go out in one call.
    pub(super) fn new(template: DatagramHeader, offload: bool) -> Self {
        Self {
            headers: vec![template; RUN_DATAGRAMS_MAX].into_boxed_slice(),
            counter: 0,
            offload,
            control: SegmentControl {
                length: 18, // the 16 bytes before and the 2 of the segment's length
                level: libc::SOL_UDP,
                kind: UDP_SEGMENT,
                segment: 0,
                rest: [0; 6],
            },
        }
    }

    /// Whether runs go out in one call.
    pub(super) fn offload(&self) -> bool {
        self.offload
    }

    /// Takes the next run off `bytes`, with `each` bytes of it in a datagram, and numbers its headers.
    pub(super) fn next_run<'a>(
        &mut self,
        header: &DatagramHeader,
        prefix: &'a [u8],
        each: usize,
        bytes: &mut &'a [u8],
        offset: u64,
    ) -> Run<'a> {
        let datagram = DATAGRAM_HEADER_BYTES + prefix.len() + each;
        let most = if self.offload { (RUN_BYTES_MAX / datagram).min(RUN_DATAGRAMS_MAX) } else { 1 };
        let datagrams = bytes.len().div_ceil(each).clamp(1, most.max(1));
        let (body, rest) = bytes.split_at(bytes.len().min(datagrams * each));
        *bytes = rest;
        for (n, place) in self.headers[..datagrams].iter_mut().enumerate() {
            *place = *header;
            place.position.set(header.position.get() + offset + (n * each) as u64);
            self.counter += 1;
            place.counter.set(self.counter);
            if n + 1 < datagrams || !rest.is_empty() {
                place.flags &= !FLAG_PADS;
            }
        }
        Run { prefix, bytes: body, each, datagrams }
    }

    /// Sends the run to one address.
    pub(super) fn transmit(
        &mut self,
        socket: &Socket,
        to: &SockAddr,
        run: &Run<'_>,
        counters: &mut NetworkCounters,
    ) {
        if run.datagrams == 1 {
            send_one(socket, to, &run.slices(&self.headers[0], 0), counters);
            return;
        }
        let mut slices = [IoSlice::new(&[]); SLICES * RUN_DATAGRAMS_MAX];
        for (n, place) in slices.chunks_exact_mut(SLICES).take(run.datagrams).enumerate() {
            place.copy_from_slice(&run.slices(&self.headers[n], n));
        }
        let slices = &slices[..SLICES * run.datagrams];
        if self.offload {
            let segment = DATAGRAM_HEADER_BYTES + run.prefix.len() + run.each;
            self.control.segment = segment as u16;
            let message = MsgHdr::new()
                .with_addr(to)
                .with_buffers(slices)
                .with_control(self.control.as_bytes());
            counters.send_calls += 1;
            match retry(|| socket.sendmsg(&message, 0)) {
                Ok(bytes) => return counters.sent(run.datagrams, bytes),
                Err(error) => match error.raw_os_error() {
                    // The interface cannot do it at all.
                    Some(libc::EIO) => {
                        counters.offload_refused += 1;
                        self.offload = false;
                    }
                    // These datagrams are longer than this path takes (`EINVAL` from older kernels).
                    Some(libc::EMSGSIZE | libc::EINVAL) => counters.offload_refused += 1,
                    _ => return counters.send_failures += run.datagrams as u64,
                },
            }
        }
        for datagram in slices.chunks_exact(SLICES) {
            send_one(socket, to, datagram, counters);
        }
    }
}

impl Run<'_> {
    fn slices<'b>(&'b self, header: &'b DatagramHeader, n: usize) -> [IoSlice<'b>; SLICES] {
        let start = n * self.each;
        let end = self.bytes.len().min(start + self.each);
        [
            IoSlice::new(header.as_bytes()),
            IoSlice::new(self.prefix),
            IoSlice::new(&self.bytes[start..end]),
        ]
    }
}

/// Does the host know runs of datagrams?
pub(super) fn offload_known(socket: &Socket) -> bool {
    super::option::get::<i32>(socket, libc::SOL_UDP, UDP_SEGMENT).is_ok()
}

fn send_one(
    socket: &Socket,
    to: &SockAddr,
    slices: &[IoSlice<'_>],
    counters: &mut NetworkCounters,
) {
    let message = MsgHdr::new().with_addr(to).with_buffers(slices);
    counters.send_calls += 1;
    match retry(|| socket.sendmsg(&message, 0)) {
        Ok(bytes) => counters.sent(1, bytes),
        Err(_) => counters.send_failures += 1,
    }
}

/// Once more after a signal.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::datagram::{DatagramKind, FLAG_REPAIR};
    use crate::types::{GroupId, Leadership};
    use proptest::prelude::*;

    fn header() -> DatagramHeader {
        let mut header =
            DatagramHeader::new(DatagramKind::Data, GroupId(3), None, Leadership::default());
        header.flags = FLAG_PADS | FLAG_REPAIR;
        header.position.set(1_000);
        header
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// However bytes are cut: in order, without a gap, each datagram with its own position and counter, the flag of the
        /// padding on the last one only, and no run longer than the host takes.
        #[test]
        fn runs_carry_every_byte_once(
            length in 0_usize..200_000,
            each in 1_usize..66_000,
            prefix in 0_usize..64,
            offload: bool,
        ) {
            let length = length.min(each * 300);
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let prefix = vec![9; prefix];
            let mut batcher = Batcher::new(header(), offload);
            let (mut rest, mut position, mut counter) = (&bytes[..], 1_000, 0);
            loop {
                let offset = (length - rest.len()) as u64;
                let run = batcher.next_run(&header(), &prefix, each, &mut rest, offset);
                prop_assert!(run.datagrams == 1 || offload);
                prop_assert!(run.datagrams <= RUN_DATAGRAMS_MAX);
                let size = DATAGRAM_HEADER_BYTES + prefix.len() + each;
                prop_assert!(run.datagrams == 1 || run.datagrams * size <= RUN_BYTES_MAX);
                for (n, sent) in batcher.headers[..run.datagrams].iter().enumerate() {
                    let [head, before, body] = run.slices(sent, n);
                    prop_assert_eq!(&head[..], sent.as_bytes());
                    prop_assert_eq!(&before[..], &prefix[..]);
                    prop_assert_eq!(sent.position.get(), position);
                    counter += 1;
                    prop_assert_eq!(sent.counter.get(), counter);
                    let start = (position - 1_000) as usize;
                    prop_assert_eq!(&body[..], &bytes[start..start + body.len()]);
                    position += body.len() as u64;
                    let last = position == 1_000 + length as u64;
                    prop_assert!(body.len() == each || last);
                    let flags = if last { FLAG_PADS | FLAG_REPAIR } else { FLAG_REPAIR };
                    prop_assert_eq!(sent.flags, flags);
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(position, 1_000 + length as u64);
        }
    }
}
