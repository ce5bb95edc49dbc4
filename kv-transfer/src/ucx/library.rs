//! Safe wrappers of UCX's context, worker and registered memory, with the settings that one-sided reads need. All of
//! them stay on one thread; knows no peer.

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::mem::zeroed;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::Arc;

use kernels::memory::HostMemory;
use ucx_rs::{status_string, sys};

use crate::TransferError;

pub(super) type Status = sys::ucs_status_t;
pub(super) const OK: Status = sys::ucs_status_t_UCS_OK;
pub(super) const IN_PROGRESS: Status = sys::ucs_status_t_UCS_INPROGRESS;

/// Settings that the environment cannot change.
///
/// - `RNDV_THRESH=inf`: with rendezvous possible, peer error handling drops the cross-memory lane without a word
///   (UCX 1.22, `select.c`), and reads become ten times slower.
/// - `PROTO_EMULATION_ENABLE=n`: reads emulated in software check no bounds at the owner; a missing zero-copy path must
///   be an error.
/// - `KEEPALIVE_INTERVAL=1s`: a dead peer is noticed even when nothing is in flight.
/// - `POSIX_ERROR_HANDLING=y`, `SYSV_ERROR_HANDLING=y`: without them shared memory cannot tell that a peer has died,
///   and connecting would need tcp.
/// - `POSIX_USE_PROC_LINK=y`: receive queues have no name to open; only the ptrace right admits to them.
const SETTINGS: [(&CStr, &CStr); 7] = [
    (c"POSIX_ERROR_HANDLING", c"y"),
    (c"SYSV_ERROR_HANDLING", c"y"),
    (c"POSIX_USE_PROC_LINK", c"y"),
    (c"RNDV_THRESH", c"inf"),
    (c"PROTO_EMULATION_ENABLE", c"n"),
    (c"KEEPALIVE_INTERVAL", c"1s"),
    (c"MAX_RMA_RAILS", c"2"),
];

unsafe extern "C" {
    /// Sets one of the process-wide options (`ucs/config/global_opts.h`); the generated bindings leave it out.
    fn ucs_global_opts_set_value(name: *const c_char, value: *const c_char) -> Status;
}

pub(super) fn check(operation: &'static str, status: Status) -> Result<(), TransferError> {
    if status == OK { Ok(()) } else { Err(error(operation, status)) }
}

pub(super) fn error(operation: &'static str, status: Status) -> TransferError {
    TransferError::Ucx { operation, status: status_string(status).to_owned() }
}

/// A context with its one worker. Every object made from it holds an `Rc` of it, so it is dropped last.
pub(super) struct Library {
    context: sys::ucp_context_h,
    worker: sys::ucp_worker_h,
    events: RawFd,
}

pub(super) enum Arming {
    Armed,
    Busy,
}

impl Library {
    pub(super) fn open(tls: &str) -> Result<Rc<Self>, TransferError> {
        quiet();
        let mut library = Self { context: open_context(tls)?, worker: null_mut(), events: -1 };
        // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields count.
        let mut params: sys::ucp_worker_params_t = unsafe { zeroed() };
        params.field_mask = u64::from(sys::ucp_worker_params_field_UCP_WORKER_PARAM_FIELD_THREAD_MODE);
        params.thread_mode = sys::ucs_thread_mode_t_UCS_THREAD_MODE_SINGLE;
        // SAFETY: the context is live and both pointers lead to live values.
        let status = unsafe { sys::ucp_worker_create(library.context, &raw const params, &raw mut library.worker) };
        check("create a worker", status)?;
        // SAFETY: the worker is live and was made with the wake-up feature.
        let status = unsafe { sys::ucp_worker_get_efd(library.worker, &raw mut library.events) };
        check("get the worker's event descriptor", status)?;
        Ok(Rc::new(library))
    }

    pub(super) fn worker(&self) -> sys::ucp_worker_h {
        self.worker
    }

    /// Descriptor that becomes readable when an armed worker has work to do.
    pub(super) fn events(&self) -> RawFd {
        self.events
    }

    /// Returns the address with which peers connect to the worker.
    pub(super) fn address(&self) -> Result<Vec<u8>, TransferError> {
        // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields to fill.
        let mut attributes: sys::ucp_worker_attr_t = unsafe { zeroed() };
        attributes.field_mask = u64::from(sys::ucp_worker_attr_field_UCP_WORKER_ATTR_FIELD_ADDRESS);
        // SAFETY: the worker is live and the pointer leads to a live value.
        check("query the worker", unsafe { sys::ucp_worker_query(self.worker, &raw mut attributes) })?;
        // SAFETY: UCX says that so many bytes are readable there until they are released, which is after the copy.
        let address =
            unsafe { std::slice::from_raw_parts(attributes.address.cast::<u8>(), attributes.address_length) }.to_vec();
        // SAFETY: the address came from this worker just now.
        unsafe { sys::ucp_worker_release_address(self.worker, attributes.address) };
        Ok(address)
    }

    /// Makes progress, callbacks included; false when there was nothing to do.
    pub(super) fn progress(&self) -> bool {
        // SAFETY: the worker is live, and this object stays on its thread.
        unsafe { sys::ucp_worker_progress(self.worker) != 0 }
    }

    pub(super) fn arm(&self) -> Result<Arming, TransferError> {
        // SAFETY: the worker is live and was made with the wake-up feature.
        match unsafe { sys::ucp_worker_arm(self.worker) } {
            OK => Ok(Arming::Armed),
            sys::ucs_status_t_UCS_ERR_BUSY => Ok(Arming::Busy),
            status => Err(error("arm the worker", status)),
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: both are live or null, everything made from them held an `Rc` and is gone, and this is their thread.
        unsafe {
            if !self.worker.is_null() {
                sys::ucp_worker_destroy(self.worker);
            }
            sys::ucp_cleanup(self.context);
        }
    }
}

/// Silences UCX, which writes warnings to standard output even about ordinary events, such as a peer that died.
fn quiet() {
    if std::env::var_os("UCX_LOG_LEVEL").is_none() {
        // SAFETY: both strings are constants; the option is read by value whenever a message is about to be written.
        let status = unsafe { ucs_global_opts_set_value(c"LOG_LEVEL".as_ptr(), c"fatal".as_ptr()) };
        if status != OK {
            tracing::debug!(status = status_string(status), "the log level of ucx could not be set");
        }
    }
}

fn open_context(tls: &str) -> Result<sys::ucp_context_h, TransferError> {
    let tls = CString::new(tls).map_err(|_| TransferError::Ucx {
        operation: "set TLS",
        status: "the list of transports holds a zero byte".to_owned(),
    })?;
    agrees(c"TLS", &tls)?;
    SETTINGS.iter().try_for_each(|(name, value)| agrees(name, value))?;
    let config = Config::read()?;
    config.set(c"TLS", &tls)?;
    for (name, value) in SETTINGS {
        config.set(name, value)?;
    }
    // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields count.
    let mut params: sys::ucp_params_t = unsafe { zeroed() };
    params.field_mask = u64::from(sys::ucp_params_field_UCP_PARAM_FIELD_FEATURES);
    params.features = u64::from(sys::ucp_feature_UCP_FEATURE_RMA | sys::ucp_feature_UCP_FEATURE_WAKEUP);
    let mut context = null_mut();
    let (major, minor): (c_uint, c_uint) = (sys::UCP_API_MAJOR, sys::UCP_API_MINOR);
    // SAFETY: all pointers lead to live values.
    let status =
        unsafe { sys::ucp_init_version(major, minor, &raw const params, config.0.cast_const(), &raw mut context) };
    check("open ucx", status)?;
    Ok(context)
}

/// Refuses a variable of the environment that contradicts a setting, because it would be ignored silently.
fn agrees(name: &CStr, needed: &CStr) -> Result<(), TransferError> {
    let variable = format!("UCX_{}", name.to_string_lossy());
    match std::env::var_os(&variable) {
        Some(found) if found.as_bytes() != needed.to_bytes() => Err(TransferError::UcxEnvironment {
            variable,
            found: found.to_string_lossy().into_owned(),
            needed: needed.to_string_lossy().into_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

struct Config(*mut sys::ucp_config_t);

impl Config {
    fn read() -> Result<Self, TransferError> {
        let mut config = null_mut();
        // SAFETY: null means the default prefix and no file; the last pointer leads to a live value.
        let status = unsafe { sys::ucp_config_read(std::ptr::null(), std::ptr::null(), &raw mut config) };
        check("read the configuration", status)?;
        Ok(Self(config))
    }

    fn set(&self, name: &CStr, value: &CStr) -> Result<(), TransferError> {
        // SAFETY: the configuration is live and both strings end with a zero byte.
        let status = unsafe { sys::ucp_config_modify(self.0, name.as_ptr(), value.as_ptr()) };
        check("set an option that one-sided reads need", status)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the configuration is live and unused from here on.
        unsafe { sys::ucp_config_release(self.0) };
    }
}

pub(super) struct Mapped {
    pub(super) memory: Arc<HostMemory>,
    pub(super) handle: sys::ucp_mem_h,
    library: Rc<Library>,
}

impl Mapped {
    pub(super) fn new(library: &Rc<Library>, memory: &Arc<HostMemory>) -> Result<Rc<Self>, TransferError> {
        // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields count.
        let mut params: sys::ucp_mem_map_params_t = unsafe { zeroed() };
        params.field_mask = u64::from(
            sys::ucp_mem_map_params_field_UCP_MEM_MAP_PARAM_FIELD_ADDRESS
                | sys::ucp_mem_map_params_field_UCP_MEM_MAP_PARAM_FIELD_LENGTH,
        );
        params.address = memory.as_ptr().cast();
        params.length = memory.len();
        let mut handle = null_mut();
        // SAFETY: the range is mapped, and `Mapped` keeps it so until it is unmapped from UCX.
        let status = unsafe { sys::ucp_mem_map(library.context, &raw const params, &raw mut handle) };
        check("register memory", status)?;
        Ok(Rc::new(Self { memory: Arc::clone(memory), handle, library: Rc::clone(library) }))
    }

    /// Returns the packed key with which a peer reads this memory.
    pub(super) fn key(&self) -> Result<Vec<u8>, TransferError> {
        let (mut buffer, mut bytes) = (null_mut(), 0);
        // SAFETY: context and handle are live, both pointers lead to live values.
        let status = unsafe { sys::ucp_rkey_pack(self.library.context, self.handle, &raw mut buffer, &raw mut bytes) };
        check("pack a remote key", status)?;
        // SAFETY: UCX says that so many bytes are readable there until they are released, which is after the copy.
        let key = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), bytes) }.to_vec();
        // SAFETY: the buffer came from UCX just now.
        unsafe { sys::ucp_rkey_buffer_release(buffer) };
        Ok(key)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and every read that uses it holds an `Rc` of this object.
        let status = unsafe { sys::ucp_mem_unmap(self.library.context, self.handle) };
        if status != OK {
            tracing::warn!(status = status_string(status), "memory could not be unregistered from ucx");
        }
    }
}

/// An event descriptor that any thread may ring; the worker's thread sleeps on it and on UCX's own.
pub(super) struct Bell(RawFd);

impl Bell {
    pub(super) fn new() -> Result<Self, TransferError> {
        // SAFETY: makes a new descriptor and touches nothing else.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(TransferError::system("make an event descriptor", &std::io::Error::last_os_error()));
        }
        Ok(Self(descriptor))
    }

    pub(super) fn ring(&self) {
        let one: u64 = 1;
        // SAFETY: the descriptor is live and the eight bytes are too. A full counter is a bell that rings already.
        let _rings_already = unsafe { libc::write(self.0, (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Sleeps until the bell rings, `events` becomes readable, or the time is over.
    pub(super) fn wait(&self, events: RawFd, timeout: std::time::Duration) {
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut watched = [watch(self.0), watch(events)];
        // Rounded up, so that a wait of less than a millisecond does not spin.
        let timeout_ms = c_int::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
        // SAFETY: the array is live and of the length that is passed. Being interrupted is like being woken.
        let _woken = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, timeout_ms) };
        let mut rung = 0_u64;
        // SAFETY: the descriptor is live and the eight bytes are too. It does not block; a silent bell is an error.
        let _silent = unsafe { libc::read(self.0, (&raw mut rung).cast(), size_of::<u64>()) };
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned here and not used after this.
        unsafe { libc::close(self.0) };
    }
}
