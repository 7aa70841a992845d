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

/// Reads an option whose value is an integer.
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

/// Types of which any bytes are a value.
pub(super) trait Integer: Copy {}
impl Integer for i32 {}
