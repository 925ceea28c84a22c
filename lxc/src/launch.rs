//! The process that starts a container by liblxc, and is killed when the container is ready: see docs/adr.

use std::ffi::CString;
use std::io;

use crate::sys::liblxc::{Liblxc, OLDEST};

/// Starts the container `<path>/<name>`, whose first process is the program at descriptor `init`, started with `arguments`.
/// Returns only when that failed, or the container has ended.
///
/// # Errors
/// When liblxc is not there, is too old, or does not take the configuration; what it had to say about a container that
/// could not be made is in its log.
pub fn run(name: &str, path: &str, init: i32, arguments: &[String]) -> io::Result<()> {
    let library = Liblxc::open()?;
    let version = library.version()?;
    if numbers(&version).is_none_or(|found| found < OLDEST) {
        let (major, minor) = OLDEST;
        return Err(io::Error::other(format!("liblxc is {version}; {major}.{minor} or newer is needed")));
    }
    let text = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = text(&format!("/proc/self/fd/{init}"))?;
    let arguments = arguments.iter().map(|argument| text(argument)).collect::<io::Result<Vec<_>>>()?;
    if library.container(name, path)?.run(&program, &arguments) {
        Ok(())
    } else {
        Err(io::Error::other("liblxc did not start the container"))
    }
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
