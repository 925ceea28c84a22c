//! `cryopod-e2e demo [--store zfs|dir]`: the whole story once, told to a person.
//!
//! A pod runs through CRI; its process counts in memory and in a file. It is captured, goes on, is deleted with
//! everything it had, and comes back as a new pod from the store, where memory and file go on together from the same
//! number. Ends with `demo: ok`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::crictl::{Container, Pod, Spec};
use crate::cryopod::Checkpoint;
use crate::shell::{eventually, exec_ok};
use crate::suite::{Failure, ensure};

const PATIENCE: Duration = Duration::from_secs(60);
/// Counts in memory, counts in a file, and says both with every step.
const COUNTER: &str = "memory=0; echo 0 > /file; trap 'exit 0' TERM; \
                       while :; do memory=$((memory + 1)); read n < /file; echo $((n + 1)) > /file; read n < /file; \
                       echo \"memory $memory file $n\"; sleep 0.2; done";

/// Which store the demo shows.
#[derive(Debug, Clone, Copy)]
struct Place {
    handler: &'static str,
    snapshotter: &'static str,
    config: Option<&'static str>,
}

/// What the process said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    memory: u64,
    file: u64,
}

/// Tells the story; the arguments are those after `demo`.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let place = place(args)?;
    let ink = Ink { colours: std::io::stdout().is_terminal() };
    let started = Instant::now();

    ink.title("A pod is frozen, deleted, and comes back");
    println!("  runtime handler  {}", place.handler);
    println!("  snapshotter      {}", place.snapshotter);

    ink.step(1, "A pod starts. Its process counts in memory and in a file.");
    let source = Pod::run(place.handler, "demo")?;
    let spec = Spec::sh("counter", COUNTER);
    let container = source.start(&spec)?;
    let before = beyond(&container, 5)?;
    println!("     address {}", source.address()?);
    ink.count("before the checkpoint", before);

    ink.step(2, "It is captured: memory and disk, one instant.");
    let answer = text(place, &["checkpoint", &source.id, "--mode", "full"])?;
    print!("{}", indented(&answer));
    let id = answer.split_whitespace().next().ok_or("the checkpoint has no id")?.to_owned();
    let checkpoint = Checkpoint { id: id.clone(), store: config(place) };

    ink.step(3, "It goes on, as if nothing had been; then the pod is deleted.");
    let later = beyond(&container, last(&container)?.memory + 3)?;
    ink.count("when it is deleted", later);
    source.remove()?;
    println!("     pod and container are gone; in the store:\n");
    print!("{}", indented(&text(place, &["checkpoints", "list"])?));

    ink.step(4, "A new pod is made from the checkpoint.");
    let clock = Instant::now();
    let annotations = BTreeMap::from([("cryopod.dev/restore-from".to_owned(), id)]);
    let pod = Pod::run_with(place.handler, "demo-again", &annotations, &json!({}))?;
    let restored = pod.start(&spec)?;
    let took = clock.elapsed();
    let first = beyond(&restored, 0)?;
    let first = Said { ..history(&restored)?.first().copied().unwrap_or(first) };
    println!("     address {}, running after {:.1} s", pod.address()?, took.as_secs_f64());
    ink.count("its first word", first);
    let end = beyond(&restored, first.memory + 5)?;
    ink.count("and now", end);
    in_step(&restored, before, later)?;
    println!("     memory and file went on together from {}.\n", first.memory - 1);

    pod.remove()?;
    checkpoint.delete()?;
    println!("  everything is cleaned up after {:.0} s", started.elapsed().as_secs_f64());
    println!("demo: ok");
    Ok(())
}

fn place(args: &[String]) -> Result<Place, Failure> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["--store", "zfs"] => Ok(Place { handler: "cryopod", snapshotter: "zfs", config: None }),
        ["--store", "dir"] => Ok(Place {
            handler: "cryopod-dir",
            snapshotter: "overlayfs",
            config: Some("/etc/cryopod/dir.toml"),
        }),
        _ => Err("usage: cryopod-e2e demo [--store zfs|dir]".into()),
    }
}

fn config(place: Place) -> Vec<String> {
    place.config.iter().flat_map(|path| ["--config".to_owned(), (*path).to_owned()]).collect()
}

/// What `cryopod` says to a person.
fn text(place: Place, args: &[&str]) -> Result<String, Failure> {
    let config = config(place);
    let mut argv: Vec<&str> = vec!["cryopod"];
    argv.extend(config.iter().map(String::as_str));
    argv.extend(args);
    exec_ok(&argv)
}

/// All that the container said, in order.
fn history(container: &Container) -> Result<Vec<Said>, Failure> {
    let said = container.logs()?.into_iter().filter_map(|(_, line)| {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["memory", memory, "file", file] => {
                Some(Said { memory: memory.parse().ok()?, file: file.parse().ok()? })
            }
            _ => None,
        }
    });
    Ok(said.collect())
}

fn last(container: &Container) -> Result<Said, Failure> {
    history(container)?.last().copied().ok_or_else(|| "the process said nothing".into())
}

fn beyond(container: &Container, number: u64) -> Result<Said, Failure> {
    eventually(&format!("the count is beyond {number}"), PATIENCE, || {
        Ok(history(container).unwrap_or_default().last().copied().filter(|said| said.memory > number))
    })
}

/// Both counts are the same number in every line, each line one more than the last, and the first one follows a number
/// that lies between what was seen before the capture and when the source was deleted.
fn in_step(restored: &Container, before: Said, later: Said) -> Result<(), Failure> {
    let history = history(restored)?;
    let first = history.first().ok_or("the restored process said nothing")?;
    ensure((before.memory..=later.memory).contains(&first.memory), || {
        format!("it went on with {} and not between {} and {}", first.memory, before.memory, later.memory)
    })?;
    for (said, number) in history.iter().zip(first.memory..) {
        ensure(*said == Said { memory: number, file: number }, || {
            format!("{number} was to follow, it was {said:?}")
        })?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("     {line}\n") }).collect()
}

struct Ink {
    colours: bool,
}

impl Ink {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn title(&self, text: &str) {
        println!("\n  {}\n", self.paint("1", text));
    }

    fn step(&self, number: u8, text: &str) {
        println!("\n  {}  {}\n", self.paint("1;36", &number.to_string()), self.paint("1", text));
    }

    fn count(&self, when: &str, said: Said) {
        let figure = |n: u64| self.paint("1;32", &format!("{n:>4}"));
        println!("     {when:<22} memory {}   file {}", figure(said.memory), figure(said.file));
    }
}
