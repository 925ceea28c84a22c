//! liblxc, opened when a container is made.
#![allow(unsafe_code)]
// JUSTIFICATION: a C library behind dlopen, with an object of function pointers (lxc `src/lxc/lxccontainer.h`). Only the
// first part of the object is described here; the library appends to it and never changes what is there (its symbol
// version is LXC_1.0 to this day). Each pointer is called with the types of the header, on the object that it came with.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::ptr::NonNull;

use libloading::Library;

const SONAME: &str = "liblxc.so.1";
/// The first release whose start does what the recipe relies on (`lxc.monitor.signal.pdeath`, clone3, cgroup v2 devices).
pub(crate) const OLDEST: (u32, u32) = (5, 0);

type Unused = Option<unsafe extern "C" fn()>;
type Method<T> = unsafe extern "C" fn(*mut Object, T) -> bool;

/// The beginning of `struct lxc_container`.
#[repr(C)]
struct Object {
    name: *mut c_char,
    configfile: *mut c_char,
    pidfile: *mut c_char,
    slock: *mut c_void,
    privlock: *mut c_void,
    numthreads: c_int,
    lxc_conf: *mut c_void,
    error_string: *mut c_char,
    error_num: c_int,
    daemonize: bool,
    config_path: *mut c_char,
    is_defined: Unused,
    state: Unused,
    is_running: Unused,
    freeze: Unused,
    unfreeze: Unused,
    init_pid: Unused,
    load_config: Unused,
    start: unsafe extern "C" fn(*mut Object, c_int, *const *const c_char) -> bool,
    startl: Unused,
    stop: Unused,
    want_daemonize: Method<bool>,
    want_close_all_fds: Method<bool>,
}

type New = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut Object;
type Version = unsafe extern "C" fn() -> *const c_char;

/// The library. Never closed: whatever opens it ends soon, and taking it apart is time that somebody waits for.
pub(crate) struct Liblxc {
    library: &'static Library,
}

/// A container with a configuration.
pub(crate) struct Container {
    object: NonNull<Object>,
}

fn missing(error: &libloading::Error) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{SONAME}: {error}; install liblxc1 (on Proxmox VE: lxc-pve)"),
    )
}

impl Liblxc {
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: the library's constructors only fill tables.
        let library = unsafe { Library::new(SONAME) }.map_err(|error| missing(&error))?;
        Ok(Self { library: Box::leak(Box::new(library)) })
    }

    /// E.g. `6.0.4`.
    pub(crate) fn version(&self) -> io::Result<String> {
        // SAFETY: `const char *lxc_get_version(void)`.
        let version =
            unsafe { self.library.get::<Version>(b"lxc_get_version\0") }.map_err(|error| missing(&error))?;
        // SAFETY: a constant string of the library.
        let text = unsafe { CStr::from_ptr(version()) };
        Ok(text.to_string_lossy().into_owned())
    }

    /// Reads the configuration `<path>/<name>/config`.
    pub(crate) fn container(self, name: &str, path: &str) -> io::Result<Container> {
        let text = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let (name, path) = (text(name)?, text(path)?);
        // SAFETY: `struct lxc_container *lxc_container_new(const char *name, const char *configpath)`.
        let new =
            unsafe { self.library.get::<New>(b"lxc_container_new\0") }.map_err(|error| missing(&error))?;
        // SAFETY: two strings that the library copies.
        let object = NonNull::new(unsafe { new(name.as_ptr(), path.as_ptr()) });
        let object = object.ok_or_else(|| io::Error::other("liblxc does not take the configuration"))?;
        Ok(Container { object })
    }
}

impl Container {
    /// Becomes the container's monitor: returns when it has ended, or could not be made. Whoever calls must have one thread.
    pub(crate) fn run(&mut self, program: &CStr, arguments: &[CString]) -> bool {
        let mut argv = vec![program.as_ptr()];
        argv.extend(arguments.iter().map(|argument| argument.as_ptr()));
        argv.push(std::ptr::null());
        let object = self.object.as_ptr();
        // SAFETY: the object is live and ours alone; descriptors stay open since the first process needs them; `argv` ends
        // with a null pointer and lives until the call returns.
        unsafe {
            let Object { start, want_daemonize, want_close_all_fds, .. } = &*object;
            want_daemonize(object, false)
                && want_close_all_fds(object, false)
                && start(object, 0, argv.as_ptr())
        }
    }
}
