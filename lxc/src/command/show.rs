//! `state`, `ps`, `list` and `features`.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::Failure;
use super::args::Format;
use crate::operate;
use crate::state::Container;

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}") {
        // Whoever read it has what it wanted.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// One name a line.
pub(super) fn lines(names: &[String]) -> Result<(), Failure> {
    if names.is_empty() { Ok(()) } else { print(&names.join("\n")) }
}

/// As the spec has it.
pub(super) fn state(container: &Container) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(&container.oci_state(container.status()))?)
}

pub(super) fn processes(container: &Container, format: Format) -> Result<(), Failure> {
    let pids = operate::processes(container)?;
    if format == Format::Json {
        return print(&serde_json::to_string(&pids)?);
    }
    let command = |pid: i32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        words.join(" ")
    };
    let lines: Vec<String> =
        pids.iter().map(|pid| format!("{pid:>8} {}", command(*pid).trim_end())).collect();
    print(&[vec!["     PID COMMAND".to_owned()], lines].concat().join("\n"))
}

pub(super) fn list(root: &Path, format: Format, quiet: bool) -> Result<(), Failure> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(|error| format!("{}: {error}", root.display()))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // Others may keep LXC containers of their own there.
    let mut containers: Vec<Container> = names.filter_map(|name| Container::find(root, &name).ok()).collect();
    containers.sort_by(|one, other| one.record.id.cmp(&other.record.id));
    if quiet {
        let names: Vec<&str> = containers.iter().map(|container| container.record.id.as_str()).collect();
        return if names.is_empty() { Ok(()) } else { print(&names.join("\n")) };
    }
    let states: Vec<_> = containers.iter().map(|container| container.oci_state(container.status())).collect();
    if format == Format::Json {
        return print(&serde_json::to_string(&states)?);
    }
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let line = |cells: [String; 4]| {
        let [id, pid, status, bundle] = cells;
        format!("{id:<24} {pid:>8} {status:<8} {bundle}")
    };
    let head = line(["ID", "PID", "STATUS", "BUNDLE"].map(str::to_owned));
    let rows =
        states.iter().map(|state| line(["id", "pid", "status", "bundle"].map(|field| text(&state[field]))));
    print(&std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n"))
}

/// A config.json to start from; one that is there is somebody's work.
pub(super) fn spec(bundle: &Path) -> Result<(), Failure> {
    let path = bundle.join("config.json");
    let text = serde_json::to_vec_pretty(&oci_spec::runtime::Spec::default())?;
    let written = fs::File::create_new(&path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.write_all(b"\n")));
    written.map_err(|error| format!("write {}: {error}", path.display()).into())
}

/// Annotation with the version of libseccomp, as runc has it.
const LIBRARY: &str = "io.github.seccomp.libseccomp.version";

/// OCI runtime spec, "Features".
pub(super) fn features() -> Result<(), Failure> {
    let mut features = serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": cryopod_init::options::KNOWN,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } }
        }
    });
    // Without it no pod with a filter can be made, and this says so to whoever asks before.
    if let Ok(version) = crate::seccomp::version() {
        features["annotations"] = serde_json::json!({ LIBRARY: version });
    }
    print(&serde_json::to_string_pretty(&features)?)
}
