//! What a person reads of a message: one text, and the attachments.
//!
//! A *package* is several parts that lose their meaning when they are torn apart: what is signed or
//! encrypted (RFC 1847), and a page with its pictures (RFC 2387). It is one attachment, as it stands
//! in the message with the fields of its own, so that a mail program or a browser can open it; its
//! text is the message's text all the same. An attached message is one attachment, too. Either can be
//! opened, and has attachments in turn.

use std::ops::Range;

use super::decode;
use super::html;
use super::structure::{Disposition, Encoding, Part, Structure, TooComplex, scan, unpack};

/// Octets of a message's text that are shown.
pub const TEXT_MAX: usize = 4 << 20;
/// What stands where a text was cut.
const CUT: &str = "\n[the rest is not shown]\n";

/// One attachment, as a list of them shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The part it is; see [`open`].
    pub index: usize,
    /// Its file name, decoded. Others chose it: it is data, never a path.
    pub name: Option<String>,
    /// Its media type, in lower case.
    pub content_type: String,
    /// Its size when decoded, in octets.
    pub size: usize,
    /// Whether it belongs into the text, as a picture does.
    pub inline: bool,
    /// What the text calls it by, if it does.
    pub content_id: Option<String>,
    /// Where it stands in the message, encoded. Those of one message lie one after the other, and
    /// what is between them is the cover.
    pub octets: Range<usize>,
}

/// What can be done with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is a file.
    File,
    /// It is a message, which can be read.
    Message,
    /// It is a package, which can be looked into.
    Package,
}

/// A part, decoded.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What the message says of it.
    pub part: Part,
    /// What it is.
    pub kind: Kind,
    /// Its octets; those of a package with its header.
    pub octets: Vec<u8>,
}

impl Opened {
    /// What is in it; `None` for a file.
    pub fn structure(&self) -> Option<Result<Structure, TooComplex>> {
        match self.kind {
            Kind::File => None,
            Kind::Message => Some(scan(&self.octets)),
            Kind::Package => Some(unpack(&self.octets)),
        }
    }

    /// What it says, as [`text_of`] gives it; `None` for a file that is no text.
    pub fn text(&self) -> Option<String> {
        match self.kind {
            Kind::File if self.part.content_type.starts_with("text/") => {
                Some(self.part.as_text(&self.octets))
            }
            Kind::File => None,
            Kind::Message | Kind::Package => Some(text_of(&self.octets)),
        }
    }

    /// Its attachment `number`, counted from 1; `None` where it has none of that number.
    pub fn attachment(&self, number: usize) -> Option<Self> {
        let structure = self.structure()?.ok()?;
        let listed = structure.attachments(&self.octets);
        structure.open(&self.octets, listed.get(number.checked_sub(1)?)?.index)
    }
}

/// The text of a message: plain text where there is any, else its HTML without the markup. A message
/// too complex to be taken apart is given raw. Lines end in LF; see [`super::terminal`] before it is shown.
pub fn text_of(message: &[u8]) -> String {
    match scan(message) {
        Ok(structure) => structure.text(message),
        Err(_) => cut_to_limit(
            &lines(&decode::text_or_latin(message.get(..TEXT_MAX).unwrap_or(message))),
            message.len(),
        ),
    }
}

/// The attachments of a message, in its order; none of a message too complex to be taken apart.
pub fn attachments(message: &[u8]) -> Vec<Attachment> {
    scan(message).map(|structure| structure.attachments(message)).unwrap_or_default()
}

/// The part `index` that [`attachments`] named.
pub fn open(message: &[u8], index: usize) -> Option<Opened> {
    scan(message).ok()?.open(message, index)
}

impl Structure {
    /// The text of the message that this is the structure of; see [`text_of`].
    pub fn text(&self, message: &[u8]) -> String {
        let shown = self.shown();
        let mut text = String::new();
        for part in self.parts.iter().zip(shown).filter_map(|(part, shown)| shown.then_some(part)) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&part.as_text(&part.content(message)));
            if text.len() > TEXT_MAX {
                return cut_to_limit(&text, text.len());
            }
        }
        text
    }

    /// The attachments of the message that this is the structure of: in whatever alternative it
    /// stands, every package, and outside of those every leaf that is not its text, or that has a name.
    pub fn attachments(&self, message: &[u8]) -> Vec<Attachment> {
        let (is_text, packages) = (self.is_text(), self.packages());
        let is_attachment = |(index, part): &(usize, &Part)| match packages[*index] {
            Some(package) => package == *index,
            None => !part.container && (!is_text[*index] || part.name.is_some()),
        };
        let attachment = |(index, part): (usize, &Part)| Attachment {
            index,
            name: part.name.clone(),
            content_type: part.content_type.clone(),
            size: part.content(message).len(),
            inline: part.disposition == Disposition::Inline
                || part.disposition == Disposition::Unsaid && part.content_id.is_some(),
            content_id: part.content_id.clone(),
            octets: part.octets(),
        };
        self.parts.iter().enumerate().filter(is_attachment).map(attachment).collect()
    }

    /// The part `index` of the message that this is the structure of: a leaf or a package.
    pub fn open(&self, message: &[u8], index: usize) -> Option<Opened> {
        let part = self.parts.get(index)?;
        let kind = match part.content_type.as_str() {
            _ if part.container => Kind::Package,
            "message/rfc822" | "message/global" => Kind::Message,
            _ => Kind::File,
        };
        let can_be_opened = kind != Kind::Package || self.packages()[index] == Some(index);
        can_be_opened.then(|| Opened { part: part.clone(), kind, octets: part.content(message) })
    }

    /// For each part, the package that it is or is in; of packages in packages the outermost.
    fn packages(&self) -> Vec<Option<usize>> {
        let is_text = self.is_text();
        // A part's parent stands before it: going backwards, a container comes after all that is in it.
        let mut has_files = vec![false; self.parts.len()];
        let mut has_loose_files = vec![false; self.parts.len()];
        for (index, part) in self.parts.iter().enumerate().rev() {
            if !part.container || part.is_sealed() {
                has_files[index] = !is_text[index];
                // What nothing refers to, and is to be shown on request, is no part of a page.
                has_loose_files[index] = !part.container
                    && part.disposition == Disposition::Attachment
                    && part.content_id.is_none();
            }
            if let Some(parent) = part.parent {
                has_files[parent] |= has_files[index];
                has_loose_files[parent] |= has_loose_files[index];
            }
        }
        let mut packages: Vec<Option<usize>> = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let around = part.parent.and_then(|parent| packages[parent]);
            let page =
                part.content_type == "multipart/related" && has_files[index] && !has_loose_files[index];
            let opened = self.unpacked && index == 0;
            let is_package = part.container && !opened && (part.is_sealed() || page);
            packages.push(around.or(is_package.then_some(index)));
        }
        packages
    }

    /// For each part, whether it is text to be read, in one or another alternative.
    fn is_text(&self) -> Vec<bool> {
        let first_leaf = self.parts.iter().position(|part| !part.container);
        let is_text = |(index, part): (usize, &Part)| {
            let readable = matches!(part.content_type.as_str(), "text/plain" | "text/html" | "text/enriched");
            // A named text is a file; where a message begins with it, it is to be read as well.
            let named = part.name.is_some() && first_leaf != Some(index);
            !part.container
                && readable
                && !named
                && part.disposition != Disposition::Attachment
                && !self.is_related_to_another(index)
        };
        self.parts.iter().enumerate().map(is_text).collect()
    }

    /// Whether the part is in a multipart/related and not its root (RFC 2387), which is the first.
    fn is_related_to_another(&self, index: usize) -> bool {
        let parent = self.parts.get(index).and_then(|part| part.parent);
        let related =
            |parent: &usize| self.parts.get(*parent).is_some_and(|p| p.content_type == "multipart/related");
        parent.filter(related).is_some_and(|parent| index != parent + 1)
    }

    /// For each part, whether its text is shown: of each multipart/alternative, one branch.
    ///
    /// A part's parent stands before it, so going backwards a container comes after all that is in
    /// it, and going forwards before.
    fn shown(&self) -> Vec<bool> {
        let is_text = self.is_text();
        let mut worth = vec![Worth::Nothing; self.parts.len()];
        let mut best: Vec<Option<usize>> = vec![None; self.parts.len()];
        for (index, part) in self.parts.iter().enumerate().rev() {
            if is_text[index] {
                worth[index] = if part.content_type == "text/html" { Worth::Html } else { Worth::Plain };
            }
            let Some(parent) = part.parent else { continue };
            // Among equals the last HTML wins, being the richest, and the first plain text.
            if worth[index] > worth[parent] || worth[index] == Worth::Plain {
                best[parent] = Some(index);
                worth[parent] = worth[index];
            }
        }
        let mut shown: Vec<bool> = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            shown.push(part.parent.is_none_or(|parent| {
                let alternative = self.parts[parent].content_type == "multipart/alternative";
                shown[parent] && (!alternative || best[parent] == Some(index))
            }));
        }
        shown.into_iter().zip(is_text).map(|(shown, is_text)| shown && is_text).collect()
    }
}

/// What a branch of alternatives has to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Nothing,
    Html,
    Plain,
}

impl Part {
    /// The content of the part, decoded; a container as it stands, with its header.
    pub fn content(&self, message: &[u8]) -> Vec<u8> {
        let octets = message.get(self.octets()).unwrap_or_default();
        match self.encoding {
            // RFC 2045 §6.4: a container itself is in no encoding, whatever it says.
            _ if self.container => octets.to_vec(),
            Encoding::Identity => octets.to_vec(),
            Encoding::QuotedPrintable => decode::quoted_printable(octets),
            Encoding::Base64 => decode::base64(octets),
            Encoding::Uuencode => decode::uuencode(octets),
        }
    }

    /// Where [`Part::content`] stands in the message.
    fn octets(&self) -> Range<usize> {
        if self.container { self.header.start..self.body.end } else { self.body.clone() }
    }

    /// Whether it is a container of what is signed or encrypted as a whole (RFC 1847).
    fn is_sealed(&self) -> bool {
        self.container && matches!(self.content_type.as_str(), "multipart/signed" | "multipart/encrypted")
    }

    /// The content of a text part as text, cut if need be.
    fn as_text(&self, content: &[u8]) -> String {
        let kept = content.get(..TEXT_MAX).unwrap_or(content);
        let text = decode::text_in(self.charset.as_deref(), kept);
        let text = if self.content_type == "text/html" { html::to_text(&text) } else { text };
        cut_to_limit(&lines(&text), content.len())
    }
}

/// Ends lines in LF.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// The text up to the limit, and a word about it if `whole` octets were more.
fn cut_to_limit(text: &str, whole: usize) -> String {
    if whole <= TEXT_MAX {
        return text.to_owned();
    }
    let (kept, _) = text.split_at(text.floor_char_boundary(TEXT_MAX));
    format!("{kept}{CUT}")
}
