//! Processes and CPUs: what a program that starts others, or that places its threads, asks of the host.

#![allow(unsafe_code)] // each block with its proof

use std::io;
use std::mem::size_of;

/// Makes the kernel kill this process (SIGKILL) when the thread that started it ends. `parent` is the process that is
/// expected to be the parent: if that has already gone, this says so instead of waiting for a death that was missed.
///
/// # Errors
/// What the host says, or `NotFound` when the parent is no longer `parent`.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    let signal = libc::c_ulong::from(libc::SIGKILL.unsigned_abs());
    // SAFETY: PR_SET_PDEATHSIG takes one integer and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the parent process has already ended"))
    }
}

/// Lets this thread, and what it starts afterwards, run on these CPUs only.
///
/// # Errors
/// `InvalidInput` for a CPU number beyond what the host's interface can express; else what the host says (for example,
/// when none of them exists).
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE.unsigned_abs() as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU"));
        }
        // SAFETY: the index is below CPU_SETSIZE, as just checked.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is ours and as long as we say; 0 is this thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::cpu::allowed_cpus;

    #[test]
    fn a_thread_can_be_put_on_one_cpu_and_sees_it() {
        let worker = std::thread::spawn(|| {
            let before = allowed_cpus();
            let one = *before.last().expect("a running thread has a CPU");
            run_on(&[one]).expect("a CPU that is allowed can be chosen");
            (one, allowed_cpus())
        });
        let (one, after) = worker.join().expect("no panic");
        assert_eq!(after, [one]);
    }

    #[test]
    fn a_cpu_that_cannot_be_is_refused() {
        let refused = run_on(&[usize::MAX]).expect_err("no machine has that CPU");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(run_on(&[]).is_err(), "nowhere to run is refused by the host");
    }

    #[test]
    fn a_wrong_parent_is_noticed() {
        let parent = std::os::unix::process::parent_id();
        let worker = std::thread::spawn(move || die_with_parent(parent.wrapping_add(1)));
        let error = worker.join().expect("no panic").expect_err("that is not the parent");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
