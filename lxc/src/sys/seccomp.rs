//! libseccomp, opened when it is needed: no part of cryopod that runs no LXC container should have to load it.
#![allow(unsafe_code)]
// JUSTIFICATION: a C library behind dlopen. Every function is called with the types of its header (libseccomp 2.5,
// seccomp.h); the context is released exactly once, and strings end with a zero.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libloading::Library;

const SONAME: &str = "libseccomp.so.2";

/// `SCMP_FLTATR_CTL_NNP`: whether loading sets no_new_privs; it is not loaded here, but exported.
const ATTRIBUTE_NNP: c_int = 3;
/// `SCMP_FLTATR_ACT_BADARCH`.
const ATTRIBUTE_BAD_ARCHITECTURE: c_int = 2;

/// `struct scmp_arg_cmp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) arg: c_uint,
    pub(crate) op: c_int,
    pub(crate) a: u64,
    pub(crate) b: u64,
}

type Init = unsafe extern "C" fn(u32) -> *mut c_void;
type Release = unsafe extern "C" fn(*mut c_void);
type ArchAdd = unsafe extern "C" fn(*mut c_void, u32) -> c_int;
type Resolve = unsafe extern "C" fn(*const c_char) -> c_int;
type RuleAdd = unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Comparison) -> c_int;
type Set = unsafe extern "C" fn(*mut c_void, c_int, u32) -> c_int;
type Version = unsafe extern "C" fn() -> *const [c_uint; 3];
type Export = unsafe extern "C" fn(*const c_void, c_int) -> c_int;

/// The library.
pub(crate) struct Seccomp {
    library: Library,
}

/// A filter that is being built.
pub(crate) struct Filter<'a> {
    context: *mut c_void,
    library: &'a Library,
}

fn missing(error: &libloading::Error) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{SONAME}: {error}; install libseccomp2"))
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

impl Seccomp {
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: the library's constructors only fill tables.
        let library = unsafe { Library::new(SONAME) }.map_err(|error| missing(&error))?;
        Ok(Self { library })
    }

    /// E.g. `2.6.0`.
    pub(crate) fn version(&self) -> io::Result<String> {
        // SAFETY: `const struct scmp_version *seccomp_version(void)`, three unsigned ints.
        let version = unsafe { self.library.get::<Version>(b"seccomp_version\0") };
        let version = version.map_err(|error| missing(&error))?;
        // SAFETY: it answers a constant of the library, which is open.
        let [major, minor, micro] = unsafe { *version() };
        Ok(format!("{major}.{minor}.{micro}"))
    }

    /// The number of a system call, negative where this library does not know the name.
    pub(crate) fn resolve(&self, name: &str) -> io::Result<Option<c_int>> {
        const ERROR: c_int = -1;
        let Ok(name) = CString::new(name) else { return Ok(None) };
        // SAFETY: `int seccomp_syscall_resolve_name(const char *)`.
        let resolve = unsafe { self.library.get::<Resolve>(b"seccomp_syscall_resolve_name\0") };
        let resolve = resolve.map_err(|error| missing(&error))?;
        // SAFETY: a string that ends with a zero.
        let number = unsafe { resolve(name.as_ptr()) };
        // Other negative numbers stand for calls that this architecture has under another number or not at all.
        Ok((number != ERROR).then_some(number))
    }

    pub(crate) fn filter(&self, default: u32) -> io::Result<Filter<'_>> {
        // SAFETY: `scmp_filter_ctx seccomp_init(uint32_t)`.
        let init = unsafe { self.library.get::<Init>(b"seccomp_init\0") }.map_err(|error| missing(&error))?;
        // SAFETY: one integer.
        let context = unsafe { init(default) };
        if context.is_null() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let filter = Filter { context, library: &self.library };
        filter.set(ATTRIBUTE_NNP, 0)?;
        Ok(filter)
    }
}

impl Filter<'_> {
    fn set(&self, attribute: c_int, value: u32) -> io::Result<()> {
        // SAFETY: `int seccomp_attr_set(scmp_filter_ctx, enum scmp_filter_attr, uint32_t)`.
        let set =
            unsafe { self.library.get::<Set>(b"seccomp_attr_set\0") }.map_err(|error| missing(&error))?;
        // SAFETY: our context and two integers.
        check(unsafe { set(self.context, attribute, value) })
    }

    /// What calls of architectures get that are not in the filter.
    pub(crate) fn foreign(&self, action: u32) -> io::Result<()> {
        self.set(ATTRIBUTE_BAD_ARCHITECTURE, action)
    }

    pub(crate) fn architecture(&self, token: u32) -> io::Result<()> {
        // SAFETY: `int seccomp_arch_add(scmp_filter_ctx, uint32_t)`.
        let add =
            unsafe { self.library.get::<ArchAdd>(b"seccomp_arch_add\0") }.map_err(|error| missing(&error))?;
        // SAFETY: our context and an integer.
        match check(unsafe { add(self.context, token) }) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    pub(crate) fn rule(&self, action: u32, call: c_int, arguments: &[Comparison]) -> io::Result<()> {
        // SAFETY: `int seccomp_rule_add_array(scmp_filter_ctx, uint32_t, int, unsigned int, const struct scmp_arg_cmp *)`.
        let add = unsafe { self.library.get::<RuleAdd>(b"seccomp_rule_add_array\0") };
        let add = add.map_err(|error| missing(&error))?;
        let count =
            c_uint::try_from(arguments.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: our context, and an array of as many elements as are counted.
        check(unsafe { add(self.context, action, call, count, arguments.as_ptr()) })
    }

    pub(crate) fn export(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: `int seccomp_export_bpf(const scmp_filter_ctx, int)`.
        let export = unsafe { self.library.get::<Export>(b"seccomp_export_bpf\0") };
        let export = export.map_err(|error| missing(&error))?;
        // SAFETY: our context and an open descriptor.
        check(unsafe { export(self.context, to.as_raw_fd()) })
    }
}

impl Drop for Filter<'_> {
    fn drop(&mut self) {
        // SAFETY: `void seccomp_release(scmp_filter_ctx)`.
        if let Ok(release) = unsafe { self.library.get::<Release>(b"seccomp_release\0") } {
            // SAFETY: the context is ours, and nobody uses it afterwards.
            unsafe { release(self.context) };
        }
    }
}
