//! What keeps the documentation true: links lead somewhere, quoted command lines exist, examples marked
//! ```` ```console tested ```` run, and generated pages are what the code would generate now.

mod commands;
mod definitions;
mod generated;
mod links;
mod markdown;
mod picture;
mod units;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::CommandFactory;

use self::commands::Manuals;
use self::markdown::Page;
use crate::args::Args;
use crate::{chart, repository, stream};

/// The info string of console blocks whose commands are run, each in a shell at the root of the repository.
const TESTED: &str = "console tested";
/// Of cryopod and the example that the pages are made from.
const LONGEST_BUILD: Duration = Duration::from_secs(20 * 60);

/// Which pages to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the pages that are made from the code.
    #[arg(long, required = true)]
    write: bool,
}

/// Writes the generated pages that differ.
pub(crate) fn run(_options: &Options) -> Result<(), Box<dyn Error>> {
    let root = repository::root();
    let until = Instant::now() + LONGEST_BUILD;
    let mut files = chart::files(&root, until)?;
    files.extend(generated::pages(&root, until)?);
    for (path, text) in files {
        let file = root.join(&path);
        if fs::read_to_string(&file).is_ok_and(|there| there == text) {
            println!("{path}: unchanged");
        } else {
            fs::write(&file, text)?;
            println!("{path}: written");
        }
    }
    Ok(())
}

/// Runs every check and reports each by name.
pub(crate) fn check(until: Instant, mut report: impl FnMut(&str, Result<(), String>)) {
    let root = repository::root();
    let pages = match pages(&root) {
        Ok(pages) => pages,
        Err(why) => return report("the Markdown files of the repository", Err(why)),
    };
    match generated::pages(&root, until) {
        Err(why) => report("generated pages", Err(why)),
        Ok(generated) => {
            for (path, text) in generated {
                let same = fs::read_to_string(root.join(&path)).is_ok_and(|there| there == text);
                let result =
                    if same { Ok(()) } else { Err("differs; run `cargo xtask docs --write`".into()) };
                report(&format!("{path}: is what the code says"), result);
            }
        }
    }
    let cryopod = build_cryopod(&root, until);
    let ask = |program: &str, path: &[String]| match (program, &cryopod) {
        ("xtask", _) => help_of_xtask(path),
        (_, Ok(program)) => help_of(program, path),
        (_, Err(why)) => Err(why.clone()),
    };
    let mut manuals = Manuals::new(&ask);
    for (path, page) in &pages {
        report(&format!("{}: links and paths", path.display()), all_good(&links::broken(&root, path, page)));
        report(&format!("{}: command lines", path.display()), all_good(&manuals.wrong(page)));
        for fence in page.fences.iter().filter(|fence| fence.info == TESTED) {
            for (line, command) in fence.commands() {
                report(&format!("{}:{line}: {command}", path.display()), example(&root, &command, until));
            }
        }
    }
}

fn all_good(wrong: &[String]) -> Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
}

/// The Markdown files that are in git or about to be.
fn pages(root: &Path) -> Result<Vec<(PathBuf, Page)>, String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]);
    let output = git.output().map_err(|error| format!("cannot start git: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut pages = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let path = PathBuf::from(name);
        match fs::read_to_string(root.join(&path)) {
            Ok(text) => pages.push((path, Page::parse(&text))),
            // Deleted and not yet committed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    Ok(pages)
}

fn build_cryopod(root: &Path, until: Instant) -> Result<PathBuf, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--quiet", "--package", "cryopod-cli"]);
    match stream::stream(cargo, until, |line| println!("{line}")) {
        Ok(stream::End::Exited(0)) => Ok(repository::target().join("debug/cryopod")),
        Ok(end) => Err(format!("cryopod was not built: {end:?}")),
        Err(error) => Err(format!("cannot start cargo: {error}")),
    }
}

fn help_of(program: &Path, path: &[String]) -> Result<String, String> {
    let output = Command::new(program).args(path).arg("--help").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("`cryopod {} --help` failed", path.join(" ")))
}

fn help_of_xtask(path: &[String]) -> Result<String, String> {
    let mut command = Args::command();
    // Hands the global options down to the subcommands.
    command.build();
    let mut command = &mut command;
    for name in path {
        command = command.find_subcommand_mut(name).ok_or_else(|| format!("no subcommand {name}"))?;
    }
    Ok(command.render_long_help().to_string())
}

fn example(root: &Path, command: &str, until: Instant) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell.current_dir(root).args(["-euc", command]);
    let mut said = Vec::new();
    let end = stream::stream(shell, until, |line| said.push(line.to_owned()));
    match end {
        Ok(stream::End::Exited(0)) => Ok(()),
        Ok(end) => Err(format!("{end:?}\n  {}", said[said.len().saturating_sub(10)..].join("\n  "))),
        Err(error) => Err(error.to_string()),
    }
}
