//! `cryopod config`: what is in force, and what is wrong with it.

use serde_json::json;

use crate::args::ConfigVerb;
use crate::context::Context;
use crate::error::Error;
use crate::exit;

/// Checks or prints the configuration.
pub(crate) fn run(context: &Context, verb: ConfigVerb) -> Result<u8, Error> {
    let config = context.config()?;
    match verb {
        ConfigVerb::Check => {
            context.output.result(&json!({ "ok": true }), |_| "configuration is fine".into())?;
        }
        ConfigVerb::Dump if context.output.is_json() => context.output.json(config)?,
        ConfigVerb::Dump => context.output.text(&config.dump().map_err(Error::DumpConfig)?)?,
    }
    Ok(exit::OK)
}
