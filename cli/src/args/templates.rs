//! Options of the verbs on templates.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cryopod_image::{Bounds, TemplateName};
use cryopod_runtime::config::Bytes;

/// What to do with templates.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TemplateVerb {
    /// Make a template of an image: from a registry, containerd, an archive or a directory
    Create(CreateTemplateArgs),
    /// List them
    #[command(visible_alias = "ls")]
    List(ListTemplatesArgs),
    /// Everything that is known of one: image, layers, what its containers run, who lives on it
    Show(TemplateArgs),
    /// Read every file of some and compare them with what they were
    Verify(TemplatesArgs),
    /// Delete some that no container is made of; their layers stay until `prune`
    #[command(visible_alias = "rm")]
    Delete(TemplatesArgs),
    /// Delete layers that nothing uses, and what a killed `create` has left
    Prune(PruneTemplatesArgs),
}

/// Options of `template create`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateTemplateArgs {
    /// Name of the template
    #[arg(value_name = "TEMPLATE")]
    pub(crate) name: TemplateName,
    /// REFERENCE or docker://REFERENCE in a registry, containerd:REFERENCE, oci-archive:FILE, docker-archive:FILE, oci:DIR
    /// (each of the three may end with :NAME), tar:FILE for a root file system, or a path that says what it is by what is
    /// in it
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Talk to the registry without TLS
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Credentials for registries [default: config.json of docker]
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    /// Refuse an image that unpacks to more
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    pub(crate) max_size: Bytes,
    /// Refuse an image with more entries in its layers
    #[arg(long, value_name = "N", default_value_t = Bounds::default().entries)]
    pub(crate) max_entries: u64,
    /// Refuse an image with a layer of more than 256 MiB that unpacks to more than so many times its size
    #[arg(long, value_name = "N", default_value_t = Bounds::default().ratio)]
    pub(crate) max_ratio: u64,
}

/// Options of `template list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListTemplatesArgs {
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// One template.
#[derive(Debug, Clone, Args)]
pub(crate) struct TemplateArgs {
    /// Template
    #[arg(value_name = "TEMPLATE")]
    pub(crate) name: TemplateName,
}

/// Some templates.
#[derive(Debug, Clone, Args)]
pub(crate) struct TemplatesArgs {
    /// Templates
    #[arg(value_name = "TEMPLATE", required = true)]
    pub(crate) names: Vec<TemplateName>,
}

/// Options of `template prune`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PruneTemplatesArgs {
    /// Say what would be deleted, and delete nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
