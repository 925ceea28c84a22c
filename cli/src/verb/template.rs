//! The verbs on templates: images in the store, which containers are clones of.

mod view;

use std::time::Duration;

use cryopod_image::{Access, Bounds, ImageName, Options, Request, Templates};
use jiff::Timestamp;
use serde_json::json;

use super::lifecycle::several;
use crate::args::{
    CreateTemplateArgs, ListTemplatesArgs, PruneTemplatesArgs, TemplateArgs, TemplateVerb, TemplatesArgs,
};
use crate::context::{Context, need_root};
use crate::error::Error;
use crate::exit;
use crate::output::progress::Progress;
use crate::output::units;

/// Looking into the store, and waiting for another operation on templates.
pub(super) const LOOK: Duration = Duration::from_secs(120);
/// Reading a whole image or template: bounded by SIGINT, not by a guess at its size.
const WHOLE: Duration = Duration::from_secs(24 * 3600);
/// containerd's namespace with the images of pods.
const NAMESPACE: &str = "k8s.io";

/// Does it.
pub(crate) fn run(context: &Context, verb: &TemplateVerb) -> Result<u8, Error> {
    match verb {
        TemplateVerb::Create(args) => create(context, args),
        TemplateVerb::List(args) => list(context, args),
        TemplateVerb::Show(args) => show(context, args),
        TemplateVerb::Verify(args) => verify(context, args),
        TemplateVerb::Delete(args) => delete(context, args),
        TemplateVerb::Prune(args) => prune(context, args),
    }
}

fn create(context: &Context, args: &CreateTemplateArgs) -> Result<u8, Error> {
    need_root("template create")?;
    let image: ImageName = args.image.parse().map_err(cryopod_image::TemplateError::from)?;
    let opened = context.open_store(&context.signals.limits(LOOK))?;
    let bounds = Bounds { unpacked: args.max_size.0, entries: args.max_entries, ratio: args.max_ratio };
    let options = Options {
        namespace: context.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned()),
        access: Access { plain_http: args.plain_http, auth_file: args.auth_file.clone() },
        scratch: opened.store.dir().to_owned(),
        most: bounds.unpacked,
    };
    let request = Request { name: &args.name, image: &image, asked: &args.image, options: &options, bounds };
    let progress = Progress::begin(&context.output, &format!("making {}", args.name));
    let created = Templates::of(&opened.store).create(&request, &progress, &context.signals.limits(WHOLE));
    drop(progress);
    let created = created?;
    context.output.result(&created, |_| args.name.to_string())?;
    let (made, shared) = (created.layers_made, created.layers_shared);
    let size = units::bytes(created.template.bytes);
    context.output.note(&format!("{}: {size}, {made} layers unpacked, {shared} shared", args.name));
    Ok(exit::OK)
}

fn list(context: &Context, args: &ListTemplatesArgs) -> Result<u8, Error> {
    need_root("template list")?;
    let limits = context.signals.limits(LOOK);
    let store = context.open_store(&limits)?.store;
    let all = Templates::of(&store).list(&limits)?;
    context.output.result(&all, |palette| {
        if args.quiet {
            return all.iter().map(|stored| stored.template.name.to_string()).collect::<Vec<_>>().join("\n");
        }
        view::list(&all, Timestamp::now(), palette)
    })?;
    Ok(exit::OK)
}

fn show(context: &Context, args: &TemplateArgs) -> Result<u8, Error> {
    need_root("template show")?;
    let limits = context.signals.limits(LOOK);
    let store = context.open_store(&limits)?.store;
    let stored = Templates::of(&store).show(&args.name, &limits)?;
    context.output.result(&stored, |palette| view::show(&stored, palette))?;
    Ok(exit::OK)
}

fn verify(context: &Context, args: &TemplatesArgs) -> Result<u8, Error> {
    need_root("template verify")?;
    let limits = context.signals.limits(WHOLE);
    let store = context.open_store(&limits)?.store;
    let (mut verified, mut lines, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for name in &args.names {
        let progress = Progress::begin(&context.output, &format!("verifying {name}"));
        let outcome = Templates::of(&store).verify(name, &limits);
        drop(progress);
        match outcome {
            Ok(tree) => {
                verified.push(json!({ "name": name, "entries": tree.entries, "bytes": tree.bytes }));
                lines.push(format!("{name}  {} entries, {} intact", tree.entries, units::bytes(tree.bytes)));
            }
            Err(error) => errors.push(Error::from(error)),
        }
    }
    if errors.is_empty() || !lines.is_empty() {
        context.output.result(&json!({ "verified": verified }), |_| lines.join("\n"))?;
    }
    several(errors, args.names.len())
}

fn delete(context: &Context, args: &TemplatesArgs) -> Result<u8, Error> {
    need_root("template delete")?;
    let store = context.open_store(&context.signals.limits(LOOK))?.store;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for name in &args.names {
        // Each has its own time: a slow one takes none from the others.
        match Templates::of(&store).delete(name, &context.signals.limits(LOOK)) {
            Ok(()) => deleted.push(name.as_str()),
            Err(error) => errors.push(Error::from(error)),
        }
    }
    if errors.is_empty() || !deleted.is_empty() {
        context.output.result(&json!({ "deleted": deleted }), |_| String::new())?;
    }
    several(errors, args.names.len())
}

fn prune(context: &Context, args: &PruneTemplatesArgs) -> Result<u8, Error> {
    need_root("template prune")?;
    let limits = context.signals.limits(WHOLE);
    let store = context.open_store(&context.signals.limits(LOOK))?.store;
    let pruned = Templates::of(&store).prune(args.dry_run, &limits)?;
    let value = json!({
        "dry_run": args.dry_run, "layers": pruned.layers, "half_made": pruned.half_made, "bytes": pruned.bytes,
    });
    context.output.result(&value, |_| view::pruned(&pruned, args.dry_run))?;
    Ok(exit::OK)
}
