//! Images: the arguments of `pixeld image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::value::{parse_id, parse_title};
use pixeld_core::ids::ImageId;

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
    /// Add an image: GIF, PNG, JPEG or WebP, recognised by its content; maximum 1 MiB and 4096 x 4096 pixels.
    ///
    /// pixeld stores it unchanged, and every node serves it within about a second. Prints the image's id.
    #[command(after_help = IMAGE_ADD_AFTER_HELP)]
    Add(ImageAddArgs),
    /// List the images: id, media type, width and height in pixels, bytes, title.
    #[command(after_help = IMAGE_LIST_AFTER_HELP)]
    List,
}

/// The arguments of `pixeld image add`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImageAddArgs {
    /// The file with the image.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The image's id in links; default: a new random one.
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    pub id: Option<ImageId>,
    /// The image's title; default: the file's name.
    #[arg(long, value_name = "TITLE", value_parser = parse_title)]
    pub title: Option<String>,
}
