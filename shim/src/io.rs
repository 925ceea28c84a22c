//! Standard streams of a process: from containerd's fifos, files, loggers and terminals to the pipes of the
//! workload and back.
//!
//! The workload always gets pipes (CRIU refuses files of the host) or a terminal. Between pipe and fifo the kernel
//! moves the pages (`splice`), so an idle container costs no buffer and no thread. Who sends where is decided by the
//! scheme of the path (containerd `core/runtime/v2/task_manager.go`): no scheme and `fifo` a fifo, `file` an
//! appended file, `binary` a logger that reads the pipes itself.

mod console;
mod copy;
mod error;
mod fifo;
mod logger;
mod prepare;
mod target;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use console::Console;
use copy::Leaving;
use logger::Logger;
use target::Opened;

pub use error::IoError;
pub use prepare::begin;

/// What containerd said about the streams of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StdioPaths {
    /// Empty for none.
    pub stdin: String,
    /// Empty for none.
    pub stdout: String,
    /// Empty for none.
    pub stderr: String,
    /// Whether the process gets a terminal; then stderr is not used.
    pub terminal: bool,
}

/// For whom streams are opened.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Container id, for loggers.
    pub id: &'a str,
    /// containerd namespace, for loggers.
    pub namespace: &'a str,
    /// Owner of the pipes where the workload runs in a user namespace.
    pub uid: u32,
    /// Group of the pipes.
    pub gid: u32,
}

/// Streams that are open, with the workload's ends not yet handed over.
#[derive(Debug)]
pub struct Prepared {
    // Where input comes from, and the write end of its pipe (none for a terminal).
    stdin: Option<(PathBuf, Option<OwnedFd>)>,
    outputs: Vec<Output>,
    console: Option<Console>,
    logger: Option<Logger>,
}

#[derive(Debug)]
struct Output {
    to: Opened,
    // None for a terminal, whose output comes from its master.
    from: Option<OwnedFd>,
}

/// The streams of a process that runs.
#[derive(Debug)]
pub struct Io {
    outputs: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
    stdin: Mutex<Input>,
    master: Option<OwnedFd>,
    logger: tokio::sync::Mutex<Option<Logger>>,
    leaving: Leaving,
}

/// The way of input to the process.
#[derive(Debug)]
enum Input {
    /// Not opened before the process runs. A client that has written everything closes its input by CloseIO; if it
    /// could write before containerd knows the task, its CloseIO would come too early and be lost.
    Waiting { path: PathBuf, to: copy::Sink, closed: bool },
    /// Being copied. Our own write end of the fifo: the process sees the end of file only once this is gone too.
    Open { own_writer: Option<OwnedFd>, copying: JoinHandle<()> },
    /// There is none.
    None,
}

impl Prepared {
    /// Starts copying, after the runtime has made the process.
    ///
    /// # Errors
    /// When the runtime sent no terminal, or descriptors run out.
    pub async fn connect(self) -> Result<Io, IoError> {
        let master = match self.console {
            Some(console) => Some(console.receive().await?),
            None => None,
        };
        let (mut outputs, leaving) = (Vec::new(), Leaving::default());
        for Output { to, from } in self.outputs {
            let from = match (from, &master) {
                (Some(pipe), _) => copy::Source::Pipe(pipe),
                (None, Some(master)) => copy::Source::Terminal(master.try_clone().map_err(IoError::Pipe)?),
                (None, None) => continue,
            };
            outputs.push(copy::output(from, to, leaving.clone()).map_err(IoError::Pipe)?);
        }
        if outputs.is_empty()
            && let Some(master) = &master
        {
            // Nobody wants to see it; but an unread terminal would stop the workload.
            let master = master.try_clone().map_err(IoError::Pipe)?;
            outputs.push(copy::discard(master).map_err(IoError::Pipe)?);
        }
        let stdin = match (self.stdin, &master) {
            (None, _) => Input::None,
            (Some((path, Some(pipe))), _) => {
                Input::Waiting { path, to: copy::Sink::Pipe(pipe), closed: false }
            }
            (Some((path, None)), Some(master)) => {
                let to = copy::Sink::Terminal(master.try_clone().map_err(IoError::Pipe)?);
                Input::Waiting { path, to, closed: false }
            }
            (Some((_, None)), None) => return Err(IoError::NotATerminal),
        };
        Ok(Io { outputs: outputs.into(), stdin: stdin.into(), master, logger: self.logger.into(), leaving })
    }
}

impl Io {
    fn input(&self) -> MutexGuard<'_, Input> {
        // Assigned as a whole, so a panic leaves the old or the new value.
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the input, now that containerd knows the process. Again is nothing.
    ///
    /// # Errors
    /// When the fifo is not there.
    pub fn open_input(&self) -> Result<(), IoError> {
        let mut input = self.input();
        let Input::Waiting { path, .. } = &*input else { return Ok(()) };
        let fifo = fifo::open_input(path)?;
        let Input::Waiting { to, closed, .. } = std::mem::replace(&mut *input, Input::None) else {
            return Ok(());
        };
        let copying = copy::input(fifo.reader, to).map_err(IoError::Pipe)?;
        *input = Input::Open { own_writer: fifo.own_writer.filter(|_| !closed), copying };
        Ok(())
    }

    /// Lets the process see the end of its input once everything written so far was read.
    pub fn close_stdin(&self) {
        match &mut *self.input() {
            Input::Waiting { closed, .. } => *closed = true,
            Input::Open { own_writer, .. } => *own_writer = None,
            Input::None => {}
        }
    }

    fn stop_input(&self) {
        if let Input::Open { copying, .. } = std::mem::replace(&mut *self.input(), Input::None) {
            copying.abort();
        }
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// Without a terminal.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), IoError> {
        let master = self.master.as_ref().ok_or(IoError::NotATerminal)?;
        crate::sys::set_terminal_size(master, columns, rows).map_err(IoError::Resize)
    }

    /// Waits until all output has reached its reader, at most for `patience`; whether it has. What is left then is
    /// lost, as with containerd's own shim.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.stop_input();
        self.leaving.begin();
        let began = Instant::now();
        let Ok(mut outputs) = tokio::time::timeout(patience, self.outputs.lock()).await else {
            // Somebody else drains it, and decides how long.
            return false;
        };
        let patience = patience.saturating_sub(began.elapsed());
        let all = async {
            for output in outputs.iter_mut() {
                output.await.ok();
            }
            if let Some(logger) = self.logger.lock().await.as_mut() {
                logger.ended().await;
            }
        };
        let drained = tokio::time::timeout(patience, all).await.is_ok();
        for output in outputs.drain(..) {
            output.abort();
        }
        if let Some(logger) = self.logger.lock().await.take() {
            logger.stop();
        }
        drained
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.stop_input();
        for task in self.outputs.get_mut().drain(..) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
