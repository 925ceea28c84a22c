//! Logging in containerd's text form (logfmt), through the `log` fifo of the bundle.
//!
//! containerd copies the fifo to its own stderr, so that lines of all shims stand in the journal of
//! containerd.service: each line carries id, namespace and runtime, and those of a request also its span's
//! (`method`, `id`, `trace_id`, `parent_id`), unless the event says the same name itself. One write per line, never blocking: a line that finds nobody reading is dropped. After a restart
//! containerd opens the fifo anew, hence the reopening on EPIPE.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cryopod_runtime::config;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Lines longer than this are cut: a pipe write up to PIPE_BUF (4096) is atomic, so lines of several writers never mix.
const MAX_LINE_BYTES: usize = 4096;

/// Sends all events of this process to the fifo `log` of `bundle`, with `fields` on every line. Call once.
pub fn init(bundle: &Path, fields: &[(&str, &str)], level: config::Level) {
    // A second call would be a mistake of ours; the first subscriber stays.
    tracing::subscriber::set_global_default(subscriber(bundle, fields, level)).ok();
    // ttrpc reports through `log`; only what it calls an error is worth a line.
    if log::set_logger(&FromLog).is_ok() {
        let debug = level >= config::Level::Debug;
        log::set_max_level(if debug { log::LevelFilter::Debug } else { log::LevelFilter::Error });
    }
}

pub(crate) fn subscriber(
    bundle: &Path,
    fields: &[(&str, &str)],
    level: config::Level,
) -> impl Subscriber + Send + Sync + use<> {
    let mut fixed = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        push_field(&mut fixed, name, value);
    }
    let layer = Logfmt { fixed, fifo: Mutex::new(Fifo { path: bundle.join("log"), file: None }) };
    let level = match level {
        config::Level::Error => LevelFilter::ERROR,
        config::Level::Warn => LevelFilter::WARN,
        config::Level::Info => LevelFilter::INFO,
        config::Level::Debug => LevelFilter::DEBUG,
        config::Level::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::registry().with(layer.with_filter(level))
}

struct FromLog;

impl log::Log for FromLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        match record.level() {
            log::Level::Error => tracing::warn!(target: "ttrpc", "{}", record.args()),
            _ => tracing::debug!(target: "ttrpc", "{}", record.args()),
        }
    }
    fn flush(&self) {}
}

struct Fifo {
    path: PathBuf,
    file: Option<File>,
}

impl Fifo {
    /// One attempt, and one more after reopening; then the line is lost, which is better than a stuck pod.
    fn write_line(&mut self, line: &[u8]) {
        for _ in 0..2 {
            if self.file.is_none() {
                // Without a reader this is ENXIO; a regular file in the fifo's place must not grow, hence no create.
                self.file = OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW)
                    .open(&self.path)
                    .ok();
            }
            let Some(file) = &mut self.file else { return };
            match file.write(line) {
                Ok(_) => return,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.file = None,
            }
        }
    }
}

struct Logfmt {
    fixed: String,
    fifo: Mutex<Fifo>,
}

/// Fields of a span, each ready to be appended to a line.
struct SpanFields(Vec<(&'static str, String)>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Logfmt {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Collect::default();
        attributes.record(&mut text);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(text.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut text = Collect::default();
        event.record(&mut text);
        let mut spans = String::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(SpanFields(fields)) = span.extensions().get::<SpanFields>() {
                // A name that stood twice on a line would be read as either.
                let others = fields.iter().filter(|(name, _)| !text.has(name));
                others.for_each(|(_, field)| spans.push_str(field));
            }
        }
        let now = jiff::Timestamp::now();
        let line = format_line(now, *event.metadata().level(), &text, &self.fixed, &spans);
        if let Ok(mut fifo) = self.fifo.lock() {
            fifo.write_line(line.as_bytes());
        }
    }
}

fn format_line(now: jiff::Timestamp, level: Level, text: &Collect, fixed: &str, spans: &str) -> String {
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut line = format!("time=\"{now:.9}\" level={level}");
    push_field(&mut line, "msg", &text.message);
    text.fields.iter().for_each(|(_, field)| line.push_str(field));
    line.push_str(spans);
    line.push_str(fixed);
    if line.len() >= MAX_LINE_BYTES {
        let mut end = MAX_LINE_BYTES - 5;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line.push('\n');
    line
}

#[derive(Default)]
struct Collect {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Collect {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(own, _)| *own == name)
    }
}

impl Visit for Collect {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let mut text = String::new();
            push_field(&mut text, field.name(), value);
            self.fields.push((field.name(), text));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Appends ` name=value`, quoted as logrus does where the value is more than a plain word.
fn push_field(line: &mut String, name: &str, value: &str) {
    let plain = !value.is_empty()
        && value.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/' | b'@' | b'^' | b'+')
        });
    // Writing to a String cannot fail.
    if plain { write!(line, " {name}={value}") } else { write!(line, " {name}={value:?}") }.ok();
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn line(message: &str, fields: &[(&'static str, &str)]) -> String {
        let mut text = Collect { message: message.to_owned(), fields: Vec::new() };
        for (name, value) in fields {
            let mut field = String::new();
            push_field(&mut field, name, value);
            text.fields.push((*name, field));
        }
        format_line(jiff::Timestamp::UNIX_EPOCH, Level::WARN, &text, " namespace=k8s.io", " trace_id=ab")
    }

    #[test]
    fn a_line_has_the_form_that_containerd_prints() {
        assert_eq!(
            line("cannot reach containerd", &[("id", "x-1"), ("error", "no such file")]),
            "time=\"1970-01-01T00:00:00.000000000Z\" level=warning msg=\"cannot reach containerd\" id=x-1 \
             error=\"no such file\" trace_id=ab namespace=k8s.io\n"
        );
    }

    #[test]
    fn each_level_has_the_lines_of_those_before_it_and_one_more() {
        for (at, level) in config::Level::ALL.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            std::fs::write(&path, "").unwrap();
            tracing::subscriber::with_default(subscriber(dir.path(), &[], level), || {
                tracing::error!("e");
                tracing::warn!("w");
                tracing::info!("i");
                tracing::debug!("d");
                tracing::trace!("t");
            });
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(text.lines().count(), at + 1, "{level:?}: {text}");
        }
    }

    #[test]
    fn line_breaks_and_quotes_stay_inside_their_field() {
        let text = line("a\nb \"c\"", &[]);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains(r#"msg="a\nb \"c\"""#), "{text}");
    }

    #[test]
    fn an_endless_message_is_cut_to_one_atomic_write() {
        let text = line(&"ä".repeat(5000), &[]);
        assert!(text.len() <= MAX_LINE_BYTES && text.ends_with("…\n"));
    }

    #[test]
    fn lines_go_on_after_the_reader_came_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut fifo = Fifo { path: path.clone(), file: None };
        let reader = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        fifo.write_line(b"nobody reads\n");
        let mut first = reader();
        fifo.write_line(b"one\n");
        let mut seen = [0; 64];
        assert_eq!(first.read(&mut seen).unwrap(), 4);
        drop(first);
        fifo.write_line(b"lost\n");
        let mut second = reader();
        fifo.write_line(b"two\n");
        assert_eq!(second.read(&mut seen).unwrap(), 4);
        assert_eq!(&seen[..4], b"two\n");
    }
}
