//! One UCX endpoint with the keys of the peer's memory: posts reads, and closes so that none can land afterwards.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::rc::Rc;

use ucx_rs::{decode_status_ptr, sys};

use super::library::{self, IN_PROGRESS, Library, Mapped, OK, Status};
use crate::flow::Read;
use crate::{PeerId, TransferError};

/// Queue of reads that came back, filled by callbacks while the worker makes progress.
pub(super) type Returned = Rc<RefCell<VecDeque<Return>>>;

pub(super) struct Return {
    pub(super) peer: PeerId,
    pub(super) what: What,
    pub(super) status: Status,
}

pub(super) enum What {
    /// The page of known bytes, while connecting.
    Page,
    Batch(Read),
}

/// A read in flight. UCX owns it as its callback's argument; it is taken back on exactly one of three exits.
struct Flight {
    back: Return,
    returned: Returned,
    /// Keeps the destination registered.
    _local: Rc<Mapped>,
}

/// A memory of the peer: its base address there, and its key as packed by the peer.
pub(super) struct RemoteMemory<'a> {
    pub(super) base: u64,
    pub(super) key: &'a [u8],
}

pub(super) struct Route<'a> {
    pub(super) memory: usize,
    pub(super) remote_offset: u64,
    pub(super) local: &'a Rc<Mapped>,
    pub(super) local_offset: u64,
    pub(super) bytes: u64,
}

pub(super) struct Connection {
    library: Rc<Library>,
    endpoint: sys::ucp_ep_h,
    keys: Vec<(sys::ucp_rkey_h, u64)>,
    /// Set by UCX's error callback; nothing may be posted afterwards.
    failed: Rc<Cell<Status>>,
    outstanding: u32,
    closing: Closing,
}

enum Closing {
    No,
    /// UCX's request, null once it is done.
    Since(*mut c_void),
}

impl Connection {
    /// Makes an endpoint to a worker address. Only a read that comes back shows that it is connected.
    pub(super) fn open(
        library: &Rc<Library>,
        address: &[u8],
        memories: &[RemoteMemory<'_>],
    ) -> Result<Self, TransferError> {
        let failed = Rc::new(Cell::new(OK));
        // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields count.
        let mut params: sys::ucp_ep_params_t = unsafe { zeroed() };
        params.field_mask = u64::from(
            sys::ucp_ep_params_field_UCP_EP_PARAM_FIELD_REMOTE_ADDRESS
                | sys::ucp_ep_params_field_UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
                | sys::ucp_ep_params_field_UCP_EP_PARAM_FIELD_ERR_HANDLER,
        );
        params.address = address.as_ptr().cast();
        params.err_mode = sys::ucp_err_handling_mode_t_UCP_ERR_HANDLING_MODE_PEER;
        params.err_handler.cb = Some(on_error);
        params.err_handler.arg = Rc::as_ptr(&failed).cast_mut().cast();
        let mut endpoint = null_mut();
        // SAFETY: the worker is live, the address is live during the call, and the error argument outlives the endpoint
        // because the connection holds it until the endpoint is closed.
        let status = unsafe { sys::ucp_ep_create(library.worker(), &raw const params, &raw mut endpoint) };
        library::check("connect", status)?;
        let (library, keys) = (Rc::clone(library), Vec::new());
        let mut connection = Self { library, endpoint, keys, failed, outstanding: 0, closing: Closing::No };
        for memory in memories {
            let mut key = null_mut();
            // SAFETY: the endpoint is live and the packed key is readable during the call.
            let status = unsafe { sys::ucp_ep_rkey_unpack(endpoint, memory.key.as_ptr().cast(), &raw mut key) };
            if status != OK {
                connection.abandon();
                return Err(library::error("unpack a remote key", status));
            }
            connection.keys.push((key, memory.base));
        }
        Ok(connection)
    }

    /// Returns the status that UCX's error callback reported, if it was called.
    pub(super) fn failure(&self) -> Option<Status> {
        (self.failed.get() != OK).then(|| self.failed.get())
    }

    /// Posts a read. It comes back through `returned`, immediately if UCX finished or refused it immediately.
    pub(super) fn get(&mut self, route: &Route<'_>, back: (PeerId, What), returned: &Returned) {
        let (peer, what) = back;
        let back = Return { peer, what, status: OK };
        let flight = Flight { back, returned: Rc::clone(returned), _local: Rc::clone(route.local) };
        self.outstanding += 1;
        let (key, base) = self.keys[route.memory];
        let flight = Box::into_raw(Box::new(flight));
        // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields count.
        let mut params: sys::ucp_request_param_t = unsafe { zeroed() };
        params.op_attr_mask = sys::ucp_op_attr_t_UCP_OP_ATTR_FIELD_CALLBACK
            | sys::ucp_op_attr_t_UCP_OP_ATTR_FIELD_USER_DATA
            | sys::ucp_op_attr_t_UCP_OP_ATTR_FIELD_MEMH;
        params.cb.send = Some(on_return);
        params.user_data = flight.cast();
        params.memh = route.local.handle;
        let to = route.local.memory.as_ptr().wrapping_add(route.local_offset as usize);
        // SAFETY: endpoint and key are live; the destination was checked against its mapping, which the flight keeps,
        // and it belongs to the batch until the read has come back.
        let posted = unsafe {
            sys::ucp_get_nbx(
                self.endpoint,
                to.cast(),
                route.bytes as usize,
                base + route.remote_offset,
                key,
                &raw const params,
            )
        };
        let status = match decode_status_ptr(posted) {
            // The callback has run or will run, and frees the request.
            Ok(Some(_)) => return,
            Ok(None) => OK,
            Err(status) => status,
        };
        // SAFETY: UCX did not keep the argument, so the box is still owned here alone.
        land(*unsafe { Box::from_raw(flight) }, status);
    }

    pub(super) fn count_return(&mut self) {
        self.outstanding -= 1;
    }

    /// Starts to close by force: every read in flight comes back, cancelled or done.
    pub(super) fn close(&mut self) {
        if matches!(self.closing, Closing::Since(_)) {
            return;
        }
        // SAFETY: all-zero is a valid value of this plain structure; the mask says which fields count.
        let mut params: sys::ucp_request_param_t = unsafe { zeroed() };
        params.op_attr_mask = sys::ucp_op_attr_t_UCP_OP_ATTR_FIELD_FLAGS;
        params.flags = sys::ucp_ep_close_flags_t_UCP_EP_CLOSE_FLAG_FORCE;
        // SAFETY: the endpoint is live and not used for posting after this.
        let request = unsafe { sys::ucp_ep_close_nbx(self.endpoint, &raw const params) };
        let request = match decode_status_ptr(request) {
            Ok(request) => request.unwrap_or(null_mut()),
            // A forced close that fails has nothing left to close.
            Err(_) => null_mut(),
        };
        self.closing = Closing::Since(request);
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.closing, Closing::Since(_))
    }

    /// True once a closing connection is closed and all its reads have come back.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.closing {
            Closing::No => false,
            Closing::Since(request) if request.is_null() => self.outstanding == 0,
            Closing::Since(request) => {
                // SAFETY: the request is live until it is freed below.
                if unsafe { sys::ucp_request_check_status(request) } != IN_PROGRESS {
                    // SAFETY: the request is done and freed once, because null replaces it.
                    unsafe { sys::ucp_request_free(request) };
                    self.closing = Closing::Since(null_mut());
                    return self.outstanding == 0;
                }
                false
            }
        }
    }

    /// Closes an endpoint on which nothing was ever posted; gives up after 1000 rounds of progress.
    fn abandon(&mut self) {
        self.close();
        for _ in 0..1000 {
            if self.is_closed() {
                return;
            }
            self.library.progress();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_closed() {
            // Happens only just before the worker is destroyed, and endpoint, keys and reads with it. The error
            // callback's argument must stay valid until then.
            std::mem::forget(Rc::clone(&self.failed));
            return;
        }
        for (key, _) in self.keys.drain(..) {
            // SAFETY: the key is live and no read that uses it is in flight.
            unsafe { sys::ucp_rkey_destroy(key) };
        }
    }
}

/// UCX's callback for a lost peer: stores the status.
unsafe extern "C" fn on_error(argument: *mut c_void, _endpoint: sys::ucp_ep_h, status: Status) {
    // SAFETY: the argument is the cell that the connection keeps alive until its endpoint is closed.
    let failed = unsafe { &*argument.cast::<Cell<Status>>() };
    failed.set(status);
}

unsafe extern "C" fn on_return(request: *mut c_void, status: Status, flight: *mut c_void) {
    // SAFETY: the argument is the box that `get` gave away, and this callback runs once.
    land(*unsafe { Box::from_raw(flight.cast::<Flight>()) }, status);
    // SAFETY: the request is done, and only this callback has it.
    unsafe { sys::ucp_request_free(request) };
}

fn land(flight: Flight, status: Status) {
    let Flight { back, returned, _local } = flight;
    returned.borrow_mut().push_back(Return { status, ..back });
}
