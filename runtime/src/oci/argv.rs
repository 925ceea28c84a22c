//! Command lines of crun and runc, as pure functions; other OCI runtimes take the same.
//!
//! Global options come before the verb. `--log-format json` without `--log` puts JSON on stderr, which is enough where
//! stderr is ours; where it is the container's, the log goes to a file.

use std::ffi::OsString;
use std::path::Path;

/// Arguments in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Argv(Vec<OsString>);

impl Argv {
    /// Global options of one call.
    pub(super) fn global(root: &Path, extra: &[String], systemd: bool, log: Option<&Path>) -> Self {
        let mut argv = Self::default();
        argv.option("--root", root).word("--log-format").word("json");
        if let Some(log) = log {
            argv.option("--log", log);
        }
        if systemd {
            argv.word("--systemd-cgroup");
        }
        for word in extra {
            argv.word(word);
        }
        argv
    }

    pub(super) fn word(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    pub(super) fn option(&mut self, name: &str, value: &Path) -> &mut Self {
        self.word(name).word(value)
    }

    fn console(&mut self, socket: Option<&Path>) -> &mut Self {
        if let Some(socket) = socket {
            self.option("--console-socket", socket);
        }
        self
    }

    pub(super) fn create(mut self, id: &str, bundle: &Path, pid: &Path, console: Option<&Path>) -> Self {
        self.word("create").option("--bundle", bundle).option("--pid-file", pid).console(console).word(id);
        self
    }

    pub(super) fn start(mut self, id: &str) -> Self {
        self.word("start").word(id);
        self
    }

    pub(super) fn delete(mut self, id: &str) -> Self {
        self.word("delete").word("--force").word(id);
        self
    }

    pub(super) fn update(mut self, id: &str) -> Self {
        self.word("update").word("--resources").word("-").word(id);
        self
    }

    pub(super) fn exec(mut self, id: &str, process: &Path, pid: &Path, console: Option<&Path>) -> Self {
        self.word("exec").word("--detach").option("--process", process).option("--pid-file", pid);
        self.console(console).word(id);
        self
    }

    /// `--tcp-established` belongs here: the runtime's request overrides CRIU's configuration file.
    pub(super) fn dump(mut self, id: &str, images: &Path, work: &Path, parent: Option<&Path>) -> Self {
        self.word("checkpoint").option("--image-path", images).option("--work-path", work);
        self.word("--leave-running").word("--tcp-established").word("--file-locks");
        if let Some(parent) = parent {
            self.option("--parent-path", parent);
        }
        self.word(id);
        self
    }

    pub(super) fn pre_dump(mut self, id: &str, images: &Path, work: &Path, parent: Option<&Path>) -> Self {
        self.word("checkpoint").word("--pre-dump").option("--image-path", images).option("--work-path", work);
        self.word("--tcp-established").word("--file-locks");
        if let Some(parent) = parent {
            self.option("--parent-path", parent);
        }
        self.word(id);
        self
    }

    pub(super) fn restore(mut self, id: &str, restore: &RestorePaths<'_>, tcp_established: bool) -> Self {
        self.word("restore").word("--detach").option("--bundle", restore.bundle);
        self.option("--image-path", restore.images).option("--work-path", restore.work);
        self.option("--pid-file", restore.pid).console(restore.console).word("--file-locks");
        if tcp_established {
            self.word("--tcp-established");
        }
        self.word(id);
        self
    }

    pub(super) fn words(&self) -> &[OsString] {
        &self.0
    }
}

/// What a restore names.
#[derive(Debug, Clone, Copy)]
pub(super) struct RestorePaths<'a> {
    pub(super) bundle: &'a Path,
    pub(super) images: &'a Path,
    pub(super) work: &'a Path,
    pub(super) pid: &'a Path,
    pub(super) console: Option<&'a Path>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(argv: &Argv) -> String {
        argv.words().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    fn global() -> Argv {
        Argv::global(Path::new("/r"), &[], false, None)
    }

    #[test]
    fn global_options_stand_before_the_verb() {
        let argv = Argv::global(Path::new("/r"), &["--debug".into()], true, Some(Path::new("/b/log.json")));
        assert_eq!(
            text(&argv.create("c1", Path::new("/b"), Path::new("/b/init.pid"), None)),
            "--root /r --log-format json --log /b/log.json --systemd-cgroup --debug \
             create --bundle /b --pid-file /b/init.pid c1"
        );
    }

    #[test]
    fn the_verbs_take_what_crun_and_runc_take() {
        let socket = Path::new("/s");
        for (argv, expected) in [
            (global().start("c1"), "start c1"),
            (global().delete("c1"), "delete --force c1"),
            (global().update("c1"), "update --resources - c1"),
            (
                global().exec("c1", Path::new("/p"), Path::new("/i"), Some(socket)),
                "exec --detach --process /p --pid-file /i --console-socket /s c1",
            ),
            (
                global().dump("c1", Path::new("/i"), Path::new("/w"), Some(Path::new("../1"))),
                "checkpoint --image-path /i --work-path /w --leave-running --tcp-established --file-locks \
                 --parent-path ../1 c1",
            ),
            (
                global().pre_dump("c1", Path::new("/i"), Path::new("/w"), None),
                "checkpoint --pre-dump --image-path /i --work-path /w --tcp-established --file-locks c1",
            ),
        ] {
            assert_eq!(text(&argv), format!("--root /r --log-format json {expected}"));
        }
    }

    #[test]
    fn a_restore_keeps_connections_only_when_asked() {
        let paths = RestorePaths {
            bundle: Path::new("/b"),
            images: Path::new("/i"),
            work: Path::new("/w"),
            pid: Path::new("/p"),
            console: None,
        };
        assert!(text(&global().restore("c1", &paths, true)).ends_with("--file-locks --tcp-established c1"));
        assert!(text(&global().restore("c1", &paths, false)).ends_with("--file-locks c1"));
    }
}
