//! What a stream path of containerd means, and opening the side that the shim writes to.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{IoError, fifo};

/// Where output goes, or input comes from.
#[derive(Debug)]
pub(super) enum Target {
    /// A fifo that containerd or its client reads.
    Fifo(PathBuf),
    /// A file that is appended to.
    File(PathBuf),
    /// A program that reads the pipes.
    Logger(LoggerUri),
}

/// The open side that the shim writes to.
#[derive(Debug)]
pub(super) enum Opened {
    /// A fifo; the second descriptor is our own read end, so that a restart of containerd is no EPIPE.
    Fifo(OwnedFd, Option<OwnedFd>),
    /// A file.
    File(OwnedFd),
}

/// `binary:///path/to/logger?key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggerUri {
    /// The program.
    pub path: PathBuf,
    /// Query as alternating keys and values, in order.
    pub args: Vec<String>,
    /// `binary-v2`: the logger must write a byte when ready; an end of file is a failure.
    pub must_answer: bool,
}

/// Runs a call on a path off the event loop: a path may lie on a pool that hangs, and the loop serves the whole pod.
async fn off_the_loop<T: Send + 'static>(
    stream: &'static str,
    path: PathBuf,
    call: impl FnOnce(&Path) -> Result<T, IoError> + Send + 'static,
) -> Result<T, IoError> {
    let named = path.clone();
    let panicked = |error| IoError::Open { stream, path: named, source: std::io::Error::other(error) };
    tokio::task::spawn_blocking(move || call(&path)).await.map_err(panicked)?
}

impl Target {
    /// What a stream path means; `None` for an empty one.
    pub(super) async fn find(stream: &'static str, path: &str) -> Result<Option<Self>, IoError> {
        match Self::parse(path)? {
            // Clients may also give a plain file, which is then appended to.
            Some(Target::Fifo(bare)) if !path.contains("://") => {
                let found = off_the_loop(stream, bare, |path| {
                    let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_file());
                    Ok(if is_file { Target::File(path.to_owned()) } else { Target::Fifo(path.to_owned()) })
                });
                found.await.map(Some)
            }
            other => Ok(other),
        }
    }

    /// Understands a stream path without looking at it: one without a scheme is a fifo until it is found a file.
    fn parse(path: &str) -> Result<Option<Self>, IoError> {
        if path.is_empty() {
            return Ok(None);
        }
        let malformed = || IoError::Malformed(path.to_owned());
        let Some((scheme, rest)) = path.split_once("://") else {
            return Ok(Some(Target::Fifo(path.into())));
        };
        if !rest.starts_with('/') {
            return Err(malformed());
        }
        match scheme {
            "fifo" => Ok(Some(Target::Fifo(rest.into()))),
            "file" => Ok(Some(Target::File(decode(rest).ok_or_else(malformed)?.into()))),
            "binary" | "binary-v2" => {
                let (program, query) = rest.split_once('?').unwrap_or((rest, ""));
                let mut args = Vec::new();
                for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    args.push(decode(key).ok_or_else(malformed)?);
                    args.push(decode(value).ok_or_else(malformed)?);
                }
                let path = decode(program).ok_or_else(malformed)?.into();
                Ok(Some(Target::Logger(LoggerUri { path, args, must_answer: scheme == "binary-v2" })))
            }
            other => Err(IoError::Scheme(other.to_owned())),
        }
    }

    /// Opens it for writing.
    pub(super) async fn open(self, stream: &'static str) -> Result<Opened, IoError> {
        match self {
            Target::Fifo(path) => {
                let (write, read) = fifo::open_output(&path, stream).await?;
                Ok(Opened::Fifo(write, Some(read)))
            }
            Target::File(path) => {
                let file = off_the_loop(stream, path, move |path| open_file(path, stream));
                file.await.map(Opened::File)
            }
            // One logger serves both streams, so it must stand at stdout too.
            Target::Logger(uri) => Err(IoError::Malformed(uri.path.display().to_string())),
        }
    }
}

fn open_file(path: &Path, stream: &'static str) -> Result<OwnedFd, IoError> {
    let failed = |source| IoError::Open { stream, path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        return Err(IoError::Malformed(path.display().to_string()));
    }
    Ok(file.into())
}

/// Percent-decoding, and `+` as a space, as Go's net/url reads queries.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides() {
        assert!(Target::parse("").unwrap().is_none());
        assert!(matches!(Target::parse("/run/x/stdout").unwrap(), Some(Target::Fifo(_))));
        assert!(matches!(Target::parse("fifo:///run/x").unwrap(), Some(Target::Fifo(_))));
        assert!(matches!(Target::parse("file:///var/log/x").unwrap(), Some(Target::File(_))));
        assert!(matches!(Target::parse("ttrpc+unix:///x?streaming_id=1"), Err(IoError::Scheme(_))));
        assert!(matches!(Target::parse("file://relative"), Err(IoError::Malformed(_))));
    }

    /// A call that runs on the loop itself is done at its first poll; one that does not waits here for a thread.
    #[test]
    fn looking_at_and_opening_a_file_leave_the_event_loop_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/log");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (release, held) = std::sync::mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || held.recv().ok());
            let open = Target::File(path.clone()).open("stdout");
            let text = path.display().to_string();
            let find = Target::find("stdout", &text);
            tokio::pin!(open, find);
            let moment = std::time::Duration::from_millis(50);
            assert!(tokio::time::timeout(moment, &mut open).await.is_err(), "it was opened on the loop");
            assert!(tokio::time::timeout(moment, &mut find).await.is_err(), "it was looked at on the loop");
            drop(release);
            assert!(matches!(open.await, Ok(Opened::File(_))));
            assert!(matches!(find.await, Ok(Some(Target::File(_)))));
        });
    }

    #[test]
    fn a_loggers_query_becomes_its_arguments() {
        let Some(Target::Logger(uri)) = Target::parse("binary:///usr/bin/log?id=a%2Fb&flag&n=x+y").unwrap()
        else {
            panic!("no logger")
        };
        assert_eq!(uri.path, Path::new("/usr/bin/log"));
        assert_eq!(uri.args, ["id", "a/b", "flag", "", "n", "x y"]);
        assert!(!uri.must_answer);
    }

    #[test]
    fn broken_escapes_are_refused() {
        for uri in ["binary:///x?a=%", "binary:///x?a=%zz", "file:///%ff"] {
            assert!(matches!(Target::parse(uri), Err(IoError::Malformed(_))), "{uri}");
        }
    }
}
