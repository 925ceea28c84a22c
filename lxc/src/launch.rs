//! The process that starts a container by liblxc, and is killed when the container is ready: see docs/adr.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use cryopod_init::report::Report;

use crate::cgroup;
use crate::sys::liblxc::{Liblxc, OLDEST};

/// liblxc on its way into this process.
pub struct Loading(JoinHandle<io::Result<Liblxc>>);

impl Loading {
    /// Begins to load it, beside whatever is done until it is needed, and what liblxc would wait for.
    #[must_use]
    pub fn begin() -> Self {
        cgroup::announce_move();
        Self(std::thread::spawn(supported))
    }

    /// Waits until it is there, and its thread gone.
    pub(crate) fn wait(self) -> io::Result<Liblxc> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("loading it failed")))
    }
}

fn supported() -> io::Result<Liblxc> {
    let library = Liblxc::open()?;
    let version = library.version()?;
    if numbers(&version).is_none_or(|found| found < OLDEST) {
        let (major, minor) = OLDEST;
        return Err(io::Error::other(format!("it is {version}; {major}.{minor} or newer is needed")));
    }
    Ok(library)
}

/// Starts the container `<path>/<name>`, whose first process is the program at `init` with the descriptors `inherited` by
/// their numbers. Returns only when that failed, or the container has ended. What kept liblxc from being asked is said to
/// `report`; what it had to say itself is in its log.
pub(crate) fn start(
    liblxc: Liblxc,
    name: &str,
    path: &str,
    init: BorrowedFd<'_>,
    inherited: &[String],
    mut report: &UnixStream,
) {
    if let Err(error) = run(liblxc, name, path, init, inherited) {
        // Nobody listens when the maker was killed.
        Report::Failed { message: error.to_string(), errno: error.raw_os_error() }.say(&mut report).ok();
    }
}

fn run(liblxc: Liblxc, name: &str, path: &str, init: BorrowedFd<'_>, inherited: &[String]) -> io::Result<()> {
    let text = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = text(&format!("/proc/self/fd/{}", init.as_raw_fd()))?;
    let role = [text("pid1")];
    let numbers = inherited.iter().map(|number| text(number));
    let arguments = role.into_iter().chain(numbers).collect::<io::Result<Vec<_>>>()?;
    // The end of the report says whether it was started, and its log why not.
    liblxc.container(name, path)?.run(&program, &arguments);
    Ok(())
}

/// Version of the liblxc that would be used.
///
/// # Errors
/// When there is none.
pub fn version() -> io::Result<String> {
    Liblxc::open()?.version()
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '~']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(numbers("6.0.4"), Some((6, 0)));
        assert_eq!(numbers("10.2-devel"), Some((10, 2)));
        assert_eq!(numbers("next"), None);
        assert!(numbers("10.0") > numbers("5.9"));
    }
}
