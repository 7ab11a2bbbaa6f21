//! Images: what `pixeld image` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::value::{parse_id, parse_title};

const IMAGE_ADD_AFTER_HELP: &str = "\
Examples:
  pixeld image add logo.png --title 'Our logo'
  pixeld image add dot.gif --id 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11";

const IMAGE_LIST_AFTER_HELP: &str = "\
Example:
  pixeld image list";

/// What can be done with images.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ImageCommand {
    /// Add an image: GIF, PNG, JPEG or WebP, told by its bytes, not its name; at most 1 MiB and 4096 x 4096 pixels.
    ///
    /// It is stored byte for byte and served within about a second by every node. Prints its id.
    #[command(after_help = IMAGE_ADD_AFTER_HELP)]
    Add(ImageAddArgs),
    /// List the images: id, media type, width and height in pixels, bytes, title.
    #[command(after_help = IMAGE_LIST_AFTER_HELP)]
    List,
}

/// What `pixeld image add` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImageAddArgs {
    /// The image's file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The id that links name it by; default: a new random one.
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    pub id: Option<Uuid>,
    /// What people call it; default: the file's name.
    #[arg(long, value_name = "TITLE", value_parser = parse_title)]
    pub title: Option<String>,
}
