//! The process's signals and its end where the language has no word for them; knows nothing of transports.

/// Gives SIGHUP (and, where `UCX_HANDLE_ERRORS` asks for more, the fault signals) back to what they were when the process
/// started. Linking UCX is enough to lose them: its constructors make a hang-up switch on tracing instead of ending the
/// process. To be called first in `main`, before anything else installs handlers. Does nothing in a build without UCX.
pub fn restore_signals() {
    #[cfg(feature = "ucx")]
    {
        use ucx_rs as _;

        unsafe extern "C" {
            /// Restores every handler that UCX replaced (`ucs/debug/debug_int.h`).
            fn ucs_debug_disable_signals();
        }
        // SAFETY: UCX's constructors have run, because `main` has begun; the call is guarded by UCX's own lock, and
        // nothing is left to restore the second time.
        unsafe { ucs_debug_disable_signals() };
    }
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error that names its file, instead of the silent end of the
/// process by SIGXFSZ.
pub fn let_writes_fail() {
    // SAFETY: ignoring a signal runs no code of ours, and the call takes no pointer.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Ends this process at once: no destructor runs, neither ours nor that of UCX, whose threads may be at work.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: the call takes no pointer, keeps no promise to anybody and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}
