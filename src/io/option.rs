//! Socket options that no library knows by name.
#![allow(unsafe_code)]

use core::mem::{MaybeUninit, size_of};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option whose value is a `T` of C.
pub(super) fn set<T: Copy>(socket: &impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live value; the host only reads it.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            core::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option whose value is made of integers.
pub(super) fn get<T: Integer>(socket: &impl AsFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as u32;
    // SAFETY: the pointer and the length are those of a live place, to which the host may write.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: an integer, zeroed and then perhaps written by the host: any bytes are a value of it.
    Ok(unsafe { value.assume_init() })
}

/// Datagrams dropped because the socket's receive buffer was full.
pub(super) fn drops(socket: &impl AsFd) -> io::Result<u32> {
    get::<[u32; MEMINFO_WORDS]>(socket, libc::SOL_SOCKET, SO_MEMINFO).map(|words| words[DROPS])
}

/// `SO_MEMINFO` (`asm-generic/socket.h`) and the place of the drops in it (`linux/sock_diag.h`).
const SO_MEMINFO: i32 = 55;
const MEMINFO_WORDS: usize = 9;
const DROPS: usize = 8;

/// Types of which any bytes are a value.
pub(super) trait Integer: Copy {}
impl Integer for i32 {}
impl Integer for [u32; MEMINFO_WORDS] {}
