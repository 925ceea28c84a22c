//! libzfs_core and libnvpair, loaded when the program runs: their functions behind safe ones.
#![allow(unsafe_code)]
// JUSTIFICATION: both are C libraries. They are loaded with dlopen and not linked, so that cryopod builds and runs
// on machines without them and with any version of their stable part.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::ptr;

use libloading::Library;
use nix::errno::Errno;

/// What the sonames were since OpenZFS 0.8; the functions used here have not changed meanwhile.
const CORE: [&str; 3] = ["libzfs_core.so.3", "libzfs_core.so.1", "libzfs_core.so"];
const NVPAIR: [&str; 3] = ["libnvpair.so.3", "libnvpair.so.1", "libnvpair.so"];
/// NV_UNIQUE_NAME of sys/nvpair.h.
const UNIQUE: c_uint = 1;

/// Opaque to us.
type RawList = c_void;
type RawPair = c_void;
type WithErrors = unsafe extern "C" fn(*mut RawList, *mut *mut RawList) -> c_int;

/// Why the libraries cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Library(#[from] libloading::Error),
    #[error("libzfs_core_init: {0}")]
    Init(io::Error),
}

/// The functions, and the libraries that they are in.
#[derive(Debug)]
pub(crate) struct Api {
    alloc: unsafe extern "C" fn(*mut *mut RawList, c_uint, c_int) -> c_int,
    free: unsafe extern "C" fn(*mut RawList),
    add_boolean: unsafe extern "C" fn(*mut RawList, *const c_char) -> c_int,
    add_boolean_value: unsafe extern "C" fn(*mut RawList, *const c_char, c_int) -> c_int,
    add_string: unsafe extern "C" fn(*mut RawList, *const c_char, *const c_char) -> c_int,
    add_list: unsafe extern "C" fn(*mut RawList, *const c_char, *const RawList) -> c_int,
    next: unsafe extern "C" fn(*mut RawList, *mut RawPair) -> *mut RawPair,
    pair_name: unsafe extern "C" fn(*mut RawPair) -> *const c_char,
    pair_int32: unsafe extern "C" fn(*mut RawPair, *mut i32) -> c_int,
    lzc_snapshot: unsafe extern "C" fn(*mut RawList, *mut RawList, *mut *mut RawList) -> c_int,
    lzc_destroy_snaps: unsafe extern "C" fn(*mut RawList, c_int, *mut *mut RawList) -> c_int,
    lzc_hold: unsafe extern "C" fn(*mut RawList, c_int, *mut *mut RawList) -> c_int,
    lzc_release: WithErrors,
    lzc_sync: unsafe extern "C" fn(*const c_char, *mut RawList, *mut *mut RawList) -> c_int,
    // Last, so that they are unloaded after everything that points into them.
    _core: Library,
    _nvpair: Library,
}

fn first_of(names: [&str; 3]) -> Result<Library, libloading::Error> {
    let mut error = None;
    for name in names {
        // SAFETY: these are system libraries whose initialisers do nothing but set up their own state.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(other) => error = error.or(Some(other)),
        }
    }
    Err(error.unwrap_or(libloading::Error::DlOpenUnknown))
}

impl Api {
    /// Loads both libraries and opens /dev/zfs.
    pub(crate) fn load() -> Result<Self, LoadError> {
        let nvpair = first_of(NVPAIR)?;
        let core = first_of(CORE)?;
        // SAFETY: the names and types are those of libnvpair.h, libzfs_core.h; boolean_t is an enum, hence int.
        let api = unsafe {
            Self {
                alloc: *nvpair.get(b"nvlist_alloc\0")?,
                free: *nvpair.get(b"nvlist_free\0")?,
                add_boolean: *nvpair.get(b"nvlist_add_boolean\0")?,
                add_boolean_value: *nvpair.get(b"nvlist_add_boolean_value\0")?,
                add_string: *nvpair.get(b"nvlist_add_string\0")?,
                add_list: *nvpair.get(b"nvlist_add_nvlist\0")?,
                next: *nvpair.get(b"nvlist_next_nvpair\0")?,
                pair_name: *nvpair.get(b"nvpair_name\0")?,
                pair_int32: *nvpair.get(b"nvpair_value_int32\0")?,
                lzc_snapshot: *core.get(b"lzc_snapshot\0")?,
                lzc_destroy_snaps: *core.get(b"lzc_destroy_snaps\0")?,
                lzc_hold: *core.get(b"lzc_hold\0")?,
                lzc_release: *core.get(b"lzc_release\0")?,
                lzc_sync: *core.get(b"lzc_sync\0")?,
                _core: core,
                _nvpair: nvpair,
            }
        };
        // SAFETY: the type is that of libzfs_core.h; the symbol is used before the library can go.
        let init: unsafe extern "C" fn() -> c_int = unsafe { *api._core.get(b"libzfs_core_init\0")? };
        // SAFETY: takes nothing; it opens /dev/zfs and returns an errno.
        match unsafe { init() } {
            0 => Ok(api),
            errno => Err(LoadError::Init(io::Error::from_raw_os_error(errno))),
        }
    }

    /// An empty list.
    pub(crate) fn list(&self) -> io::Result<List<'_>> {
        let mut raw = ptr::null_mut();
        // SAFETY: on success `raw` is a list that we own and that `List` frees.
        check(unsafe { (self.alloc)(&mut raw, UNIQUE, 0) })?;
        Ok(List { api: self, raw })
    }

    /// `lzc_snapshot`: the errno, and those of the single snapshots.
    pub(crate) fn snapshot(&self, snapshots: &List<'_>, properties: &List<'_>) -> Outcome {
        // SAFETY: both lists are alive, and the third argument takes a list that `outcome` owns.
        self.outcome(|errors| unsafe { (self.lzc_snapshot)(snapshots.raw, properties.raw, errors) })
    }

    /// `lzc_destroy_snaps`
    pub(crate) fn destroy_snapshots(&self, snapshots: &List<'_>, deferred: bool) -> Outcome {
        // SAFETY: as in `snapshot`.
        self.outcome(|errors| unsafe {
            (self.lzc_destroy_snaps)(snapshots.raw, c_int::from(deferred), errors)
        })
    }

    /// `lzc_hold`; with a descriptor of /dev/zfs the holds end when it is closed.
    pub(crate) fn hold(&self, holds: &List<'_>, cleanup: Option<c_int>) -> Outcome {
        // SAFETY: as in `snapshot`; the kernel checks the descriptor.
        self.outcome(|errors| unsafe { (self.lzc_hold)(holds.raw, cleanup.unwrap_or(-1), errors) })
    }

    /// `lzc_release`
    pub(crate) fn release(&self, holds: &List<'_>) -> Outcome {
        // SAFETY: as in `snapshot`.
        self.outcome(|errors| unsafe { (self.lzc_release)(holds.raw, errors) })
    }

    /// `lzc_sync`
    pub(crate) fn sync(&self, pool: &str, options: &List<'_>) -> io::Result<Outcome> {
        let pool = CString::new(pool)?;
        // SAFETY: as in `snapshot`; the name is null-terminated.
        Ok(self.outcome(|errors| unsafe { (self.lzc_sync)(pool.as_ptr(), options.raw, errors) }))
    }

    fn outcome(&self, call: impl FnOnce(*mut *mut RawList) -> c_int) -> Outcome {
        let mut errors = List { api: self, raw: ptr::null_mut() };
        let errno = call(&mut errors.raw);
        Outcome { errno, items: errors.items() }
    }
}

/// What a call returned, and what it said of single snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) errno: i32,
    pub(crate) items: Vec<(String, i32)>,
}

/// An nvlist; freed when dropped.
#[derive(Debug)]
pub(crate) struct List<'a> {
    api: &'a Api,
    raw: *mut RawList,
}

impl List<'_> {
    /// Adds a name without a value.
    pub(crate) fn add(&mut self, name: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: the list is alive and copies the null-terminated name.
        check(unsafe { (self.api.add_boolean)(self.raw, name.as_ptr()) })
    }

    /// Adds a boolean.
    pub(crate) fn add_bool(&mut self, name: &str, value: bool) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: as in `add`.
        check(unsafe { (self.api.add_boolean_value)(self.raw, name.as_ptr(), c_int::from(value)) })
    }

    /// Adds a text.
    pub(crate) fn add_text(&mut self, name: &str, value: &str) -> io::Result<()> {
        let (name, value) = (CString::new(name)?, CString::new(value)?);
        // SAFETY: as in `add`, for both texts.
        check(unsafe { (self.api.add_string)(self.raw, name.as_ptr(), value.as_ptr()) })
    }

    /// Adds a copy of a list.
    pub(crate) fn add_list(&mut self, name: &str, value: &List<'_>) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: as in `add`; the inner list is alive and is copied.
        check(unsafe { (self.api.add_list)(self.raw, name.as_ptr(), value.raw) })
    }

    /// The pairs that are 32-bit numbers.
    fn items(&self) -> Vec<(String, i32)> {
        let mut items = Vec::new();
        if self.raw.is_null() {
            return items;
        }
        let mut pair = ptr::null_mut();
        loop {
            // SAFETY: the list is alive; `pair` is null or the pair that this call returned last.
            pair = unsafe { (self.api.next)(self.raw, pair) };
            if pair.is_null() {
                return items;
            }
            let mut value = 0;
            // SAFETY: `pair` belongs to the living list; another type than int32 is refused with an errno.
            if unsafe { (self.api.pair_int32)(pair, &mut value) } != 0 {
                continue;
            }
            // SAFETY: the name of a pair is null-terminated and lives as long as the list.
            let name = unsafe { CStr::from_ptr((self.api.pair_name)(pair)) };
            items.push((name.to_string_lossy().into_owned(), value));
        }
    }
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        // SAFETY: the list is ours alone; nvlist_free takes null as well.
        unsafe { (self.api.free)(self.raw) };
    }
}

fn check(errno: c_int) -> io::Result<()> {
    match errno {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno).into()),
    }
}
