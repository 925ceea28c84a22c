//! `cryopod completions` and `cryopod man`: made from the same definitions that parse the command line, so they
//! cannot go out of date.

use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::context::Context;
use crate::error::Error;
use crate::exit;

/// Prints a completion script.
pub(crate) fn completions(context: &Context, args: &CompletionsArgs) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut public(), "cryopod", &mut script);
    context.output.bytes(&script)?;
    Ok(exit::OK)
}

/// Prints the main page, or writes all pages.
pub(crate) fn man(context: &Context, args: &ManArgs) -> Result<u8, Error> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page).map_err(Error::Stdout)?;
        context.output.bytes(&page)?;
        return Ok(exit::OK);
    };
    let mut written = Vec::new();
    write_pages(&command(), dir, &mut written)?;
    let names = || written.join("\n");
    context.output.result(&json!({ "dir": dir, "pages": written }), |_| names())?;
    Ok(exit::OK)
}

/// The command line without the verbs that only cryopod itself uses: the generators offer hidden ones too.
fn public() -> clap::Command {
    let full = Cli::command();
    let about = full.get_about().cloned().unwrap_or_default();
    let long = full.get_long_about().cloned().unwrap_or_default();
    let command =
        clap::Command::new("cryopod").about(about).long_about(long).version(env!("CARGO_PKG_VERSION"));
    command
        .args(full.get_arguments().cloned())
        .subcommands(full.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned())
}

/// With full names (`cryopod checkpoints list`), which clap fills in only when it builds.
fn command() -> clap::Command {
    let mut command = public();
    command.build();
    command
}

fn write_pages(command: &clap::Command, dir: &Path, written: &mut Vec<String>) -> Result<(), Error> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let file = format!("{name}.1");
    let path = dir.join(&file);
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page).map_err(Error::Stdout)?;
    std::fs::write(&path, page).map_err(|source| Error::Write { what: "the man page", path, source })?;
    written.push(file);
    for verb in command.get_subcommands() {
        write_pages(verb, dir, written)?;
    }
    Ok(())
}
