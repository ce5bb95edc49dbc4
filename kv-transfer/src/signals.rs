//! Signals and exit of the process, where the standard library has no call for them; knows nothing of transports.

/// Restores the handlers that SIGHUP (and, where `UCX_HANDLE_ERRORS` asks for more, the fault signals) had at the start
/// of the process. Linking UCX replaces them: its constructors make a hang-up switch on tracing instead of ending the
/// process. Call it first in `main`, before other handlers are installed. Does nothing in a build without UCX.
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

/// Turns a write beyond the limit of file sizes (`ulimit -f`) into an error, instead of a silent exit by SIGXFSZ.
pub fn let_writes_fail() {
    // SAFETY: ignoring a signal runs no code of ours, and the call takes no pointer.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Ends this process at once, without destructors: those of UCX would run while its threads are still at work.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: the call takes no pointer and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}
