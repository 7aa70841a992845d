//! Every bound in one place, related to each other by const assertions with the reason beside.
//!
//! A *limit* is what the format or the memory plan cannot exceed; a *default* is what a setting has when nobody sets it.

/// Frames start at multiples of this many bytes.
pub const FRAME_ALIGNMENT: usize = 32;
/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Bytes of the header page at the start of a segment file.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
/// Bytes of a block of a snapshot's file, its checksum and length included.
pub const SNAPSHOT_BLOCK_BYTES: usize = 64 * 1024;
/// Bytes of one seal (two of them, alternating, in the header page).
pub const SEAL_BYTES: usize = 512;

/// Smallest and largest payload of a segment, in bytes; always a power of two.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// See [`SEGMENT_BYTES_MIN`].
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Default payload of a segment, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// Largest command a client may send, in bytes, whatever the configuration says.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// What stands before a command's bytes in its frame: session, client sequence, replies received through.
pub const COMMAND_PREFIX_BYTES: usize = 24;
/// Largest frame (header, prefix and largest command), rounded up to the alignment.
pub const FRAME_BYTES_MAX: usize = (FRAME_HEADER_BYTES + COMMAND_PREFIX_BYTES + COMMAND_BYTES_MAX)
    .next_multiple_of(FRAME_ALIGNMENT);
/// Largest reply of a service, in bytes.
pub const REPLY_BYTES_MAX: usize = COMMAND_BYTES_MAX;

/// Bytes of the header of a datagram.
pub const DATAGRAM_HEADER_BYTES: usize = 64;
/// Largest UDP payload that is ever sent or received, header included.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Default UDP payload, header included: fits an Ethernet frame with room for a tunnel.
pub const DATAGRAM_BYTES_DEFAULT: usize = 1408;
/// Smallest setting for the UDP payload, header included: every control body and a client's greeting fit.
pub const DATAGRAM_BYTES_MIN: usize = 256;
/// Receive buffers per socket, at most.
pub const RECEIVE_BATCH_MAX: usize = 1024;
/// Default size asked of the host for the buffers of a data socket, in bytes.
pub const SOCKET_BUFFER_BYTES_DEFAULT: usize = 4 * 1024 * 1024;
/// Ranges in one NAK.
pub const NAK_RANGES_MAX: usize = 64;
/// Separate gaps a receiver keeps track of; a datagram that would open one more is dropped (and asked for later).
pub const GAPS_MAX: usize = 1024;
/// Repairs a sender keeps queued; more are dropped (and asked for again).
pub const REPAIRS_MAX: usize = 1024;

/// Default window of the replication stream, in bytes.
pub const WINDOW_BYTES_DEFAULT: u64 = 4 * 1024 * 1024;
/// Voting and observing nodes of one group.
pub const NODES_MAX: usize = 16;
/// Sessions open at once in one group, at most.
pub const SESSIONS_MAX: usize = 16_384;
/// Commands of one session that may be unanswered at once, at most.
pub const SESSION_IN_FLIGHT_MAX: usize = 256;
/// Default of how many sessions may be open at once.
pub const SESSIONS_DEFAULT: usize = 2048;
/// Kept replies lie in chunks of this many bytes: the unit in which reply space is counted.
pub const REPLY_CHUNK_BYTES: usize = 64;
/// Default of the bytes of replies kept for all sessions together. A group constant: all nodes run out at the same command.
pub const REPLY_SPACE_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
/// Default of the bytes of replies kept for one session. A group constant too.
pub const SESSION_REPLY_BYTES_DEFAULT: usize = 16 * 1024 * 1024;

/// Bytes of the header of a lane message, both ways.
pub const LANE_MESSAGE_HEADER_BYTES: usize = 24;
/// Lane messages start at multiples of this many bytes of their lane.
pub const LANE_MESSAGE_ALIGNMENT: usize = 8;
/// Largest lane message: header and largest command or reply, rounded up to the alignment.
pub const LANE_MESSAGE_BYTES_MAX: usize =
    (LANE_MESSAGE_HEADER_BYTES + COMMAND_BYTES_MAX).next_multiple_of(LANE_MESSAGE_ALIGNMENT);
/// Default window of a lane, each way, in bytes.
pub const LANE_WINDOW_BYTES_DEFAULT: u64 = 64 * 1024;
/// Separate gaps kept track of per lane.
pub const LANE_GAPS_MAX: usize = 12;
/// Repairs kept waiting per lane.
pub const LANE_REPAIRS_MAX: usize = 12;
/// Default bytes of one piece of the memory that all lanes of a node share.
pub const LANE_CHUNK_BYTES_DEFAULT: usize = 2048;
/// Default memory that all lanes of a node share, in bytes.
pub const LANE_POOL_BYTES_DEFAULT: usize = 64 * 1024 * 1024;

/// Longest question that a node answers by itself, in bytes: it travels in one datagram.
pub const LOCAL_QUESTION_BYTES_MAX: usize = 1024;
/// Longest reply to one, in bytes.
pub const LOCAL_REPLY_BYTES_MAX: usize = 64 * 1024;
/// Such questions that wait at one node at once; more are refused.
pub const LOCAL_QUERIES_MAX: usize = 256;

/// Timers of a service that may be pending at once.
pub const TIMERS_MAX: usize = 16 * 1024;
/// Timers that one command, or one batch, may change: so many can be undone.
pub const UNIT_TIMERS_MAX: usize = 4096;
/// Events of a service that may wait for delivery; beyond, the command that would emit another is rejected.
pub const EVENTS_MAX: usize = 4096;
/// Largest event of a service, in bytes.
pub const EVENT_BYTES_MAX: usize = 256;

/// Depth of the mailboxes between the threads of a node.
pub const MAILBOX_DEPTH: usize = 256;
/// Depth of the mailbox for bytes of a log that is taken over: so many pieces are under way at a time.
pub const LANE_MAILBOX_DEPTH: usize = 4;
/// Bytes of a log asked for at once while it is taken over.
pub const LANE_PIECE_BYTES: u64 = 128 * 1024;
/// Pieces that are asked for ahead of what the core has taken: what a connection that breaks may lose, and what a node that
/// takes a log over keeps in memory.
pub const LANE_PIECES_MAX: usize = 8;
/// Bytes of them.
pub const LANE_AHEAD_BYTES: u64 = LANE_PIECES_MAX as u64 * LANE_PIECE_BYTES;
/// Default of what a node sends in a second to those who catch up, in bytes: half of a gigabit link.
pub const CATCH_UP_BYTES_PER_SECOND_DEFAULT: u64 = 64 * 1024 * 1024;
/// Default of the bytes of log that stay on a node's disk; of what stays for a member that lacks it, four times that.
pub const RETENTION_BYTES_DEFAULT: u64 = 4 * 1024 * 1024 * 1024;
/// Default of the room on a disk below which a node says so and had better not lead, in bytes.
pub const DISK_LOW_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
/// Default of the room on a disk that segments leave free, in bytes: for what a cut keeps aside, and for events.
pub const DISK_FULL_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Hot segments that a core may hold at once.
pub const HOT_SEGMENTS_MAX: usize = 64;
/// Windows of log below the tail that stay hot even when they are on the disk.
pub const HOT_WINDOWS_MIN: u64 = 2;
/// Finest step of the sparse index over a hot segment, in bytes: a look-up walks at most this far.
pub const HOT_INDEX_BYTES_MIN: u64 = 64 * 1024;
/// Entries of the sparse index of one hot segment, at most: larger segments take larger steps.
pub const HOT_INDEX_ENTRIES_MAX: usize = 1024;
/// Starts of terms that a node remembers, for finding where two logs part; the oldest go first.
pub const TERM_STARTS_MAX: usize = 8192;

const _: () = assert!(
    FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT),
    "a header-only frame must be aligned"
);
const _: () = assert!(SEGMENT_BYTES_MIN.is_power_of_two() && SEGMENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(SEGMENT_BYTES_DEFAULT.is_power_of_two());
const _: () =
    assert!(LANE_PIECES_MAX >= 2, "while the core takes one piece the next is on its way");
const _: () = assert!(
    WINDOW_BYTES_DEFAULT >= 2 * FRAME_BYTES_MAX as u64,
    "the window holds two of the largest frames, or a large command would stall the stream"
);
const _: () = assert!(
    SEGMENT_BYTES_DEFAULT >= 2 * WINDOW_BYTES_DEFAULT,
    "two hot segments always cover two windows, so retiring one never takes bytes a repair may ask for"
);
const _: () = assert!(
    HOT_WINDOWS_MIN >= 2,
    "a repair may ask for a whole window while the next one is being filled"
);
const _: () =
    assert!(HOT_SEGMENTS_MAX.is_power_of_two() && HOT_INDEX_ENTRIES_MAX.is_power_of_two());
const _: () = assert!(
    2 * SEAL_BYTES + 1024 <= SEGMENT_HEADER_BYTES,
    "header fields and two seals fit in the page"
);
const _: () = assert!(
    REPLY_BYTES_MAX <= COMMAND_BYTES_MAX,
    "a lane message holds the largest reply as well as the largest command"
);
const _: () = assert!(
    LANE_POOL_BYTES_DEFAULT >= 4 * LANE_MESSAGE_BYTES_MAX,
    "one message of the largest size always finds room, whatever the others hold"
);
const _: () = assert!(DATAGRAM_BYTES_DEFAULT > DATAGRAM_HEADER_BYTES + FRAME_HEADER_BYTES);
const _: () = assert!(
    LOCAL_QUESTION_BYTES_MAX + DATAGRAM_HEADER_BYTES + 64 <= DATAGRAM_BYTES_DEFAULT,
    "a question and what is asked of its answer fit in one datagram"
);
const _: () = assert!(
    SESSION_REPLY_BYTES_DEFAULT >= 2 * REPLY_BYTES_MAX,
    "a session keeps one of the largest replies while the next is made"
);
const _: () = assert!(REPLY_SPACE_BYTES_DEFAULT >= SESSION_REPLY_BYTES_DEFAULT);
const _: () = assert!(SESSIONS_DEFAULT <= SESSIONS_MAX);
