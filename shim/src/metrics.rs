//! Counters of one shim in Prometheus text form, for the agent, which adds those of all pods together.
//!
//! Written by hand: a dozen lines do not need a library in every pod. The labels name the pod; escaping as in the
//! exposition format (backslash, quote, line feed).

use std::fmt::Write;

use crate::error::TaskError;
use crate::pod::Pod;

/// All metrics of the pod.
///
/// # Errors
/// None at present; statistics of a container that is just ending are left out.
pub async fn render(pod: &Pod) -> Result<String, TaskError> {
    let identity = pod.identity();
    let labels = format!(
        "pod=\"{}\",namespace=\"{}\",sandbox=\"{}\"",
        escape(&identity.name),
        escape(&identity.namespace),
        escape(&identity.id)
    );
    let mut text = Text { labels, text: String::new() };
    let events = pod.shared().publisher.counters();
    let own = resident_bytes();
    text.one("cryopod_shim_resident_bytes", "gauge", "Resident memory of the shim.", own);
    text.one("cryopod_shim_events_sent_total", "counter", "Events that containerd took.", events.sent);
    text.one(
        "cryopod_shim_events_dropped_total",
        "counter",
        "Events that containerd refused.",
        events.dropped,
    );
    text.one(
        "cryopod_shim_events_waiting",
        "gauge",
        "Events that wait for containerd.",
        events.waiting as u64,
    );
    let containers = pod.all();
    text.head("cryopod_pod_info", "gauge", "What runs the pod.");
    if let Some(container) = containers.last() {
        text.info("cryopod_pod_info", "backend", container.chosen.backend.name());
    }
    text.head("cryopod_container_running", "gauge", "Whether the container runs.");
    for container in &containers {
        let summary = container.summary();
        text.line("cryopod_container_running", &summary.name, u64::from(summary.state.is_live()));
    }
    text.head("cryopod_container_cpu_seconds_total", "counter", "CPU time used.");
    text.head("cryopod_container_memory_bytes", "gauge", "Memory used.");
    text.head("cryopod_container_oom_kills_total", "counter", "Processes killed for want of memory.");
    for container in &containers {
        let Ok(stats) = container.stats().await else { continue };
        let name = container.brief.name(&container.id).to_owned();
        let seconds = stats.cpu.usage_usec as f64 / 1e6;
        text.line("cryopod_container_cpu_seconds_total", &name, seconds);
        text.line("cryopod_container_memory_bytes", &name, stats.memory.usage);
        text.line("cryopod_container_oom_kills_total", &name, stats.memory.events.oom_kill);
    }
    Ok(text.text)
}

struct Text {
    labels: String,
    text: String,
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        writeln!(self.text, "{name}{{{}}} {value}", self.labels).ok();
    }

    fn info(&mut self, name: &str, label: &str, value: &str) {
        writeln!(self.text, "{name}{{{},{label}=\"{}\"}} 1", self.labels, escape(value)).ok();
    }

    fn line(&mut self, name: &str, container: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{name}{{{},container=\"{}\"}} {value}", self.labels, escape(container)).ok();
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Second field of /proc/self/statm, in pages.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn a_process_has_memory() {
        assert!(resident_bytes() > 100_000);
    }
}
