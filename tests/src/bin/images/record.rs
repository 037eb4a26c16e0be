//! The record of a long job: a line for each thousand seeds, so that it can be stopped and continued.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::image::Tally;

/// An open record.
#[derive(Debug)]
pub struct Record(File);

/// What an earlier run has recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// The seed behind the last recorded one.
    pub to: Option<u64>,
    /// The sum of its lines.
    pub tally: Tally,
}

/// The line for the seeds from `from` to before `to`.
pub fn line(from: u64, to: u64, tally: &Tally) -> String {
    let Tally { images, double, lost, phantom, altered, unopenable } = tally;
    format!(
        "from={from} to={to} images={images} double={double} lost={lost} phantom={phantom} \
         altered={altered} unopenable={unopenable}"
    )
}

fn parse(line: &str) -> Option<(u64, Tally)> {
    let mut numbers = [0; 8];
    let names = ["from", "to", "images", "double", "lost", "phantom", "altered", "unopenable"];
    let mut fields = line.split(' ');
    for (name, number) in names.iter().zip(&mut numbers) {
        let (found, value) = fields.next()?.split_once('=')?;
        *number = (found == *name).then(|| value.parse().ok()).flatten()?;
    }
    let [_, to, images, double, lost, phantom, altered, unopenable] = numbers;
    fields.next().is_none().then_some((to, Tally { images, double, lost, phantom, altered, unopenable }))
}

impl Record {
    /// Opens the record at `path`, making it if need be, and reads what is in it. A last line that was
    /// cut off by a kill is taken away.
    pub fn open(path: &Path) -> io::Result<(Self, Earlier)> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let text = fs::read_to_string(path)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let mut earlier = Earlier::default();
        for (to, tally) in text[..whole].lines().filter_map(parse) {
            earlier.to = Some(to);
            earlier.tally += tally;
        }
        file.flush()?;
        Ok((Self(file), earlier))
    }

    /// Appends a line.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.0, "{line}")?;
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_continued_after_its_last_whole_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("images.log");
        let tally = Tally { images: 1000, double: 190, ..Tally::default() };
        let (mut record, earlier) = Record::open(&path).expect("made");
        assert_eq!(earlier, Earlier::default());
        record.append(&line(0, 1000, &tally)).expect("written");
        let cut_off = &line(1000, 2000, &tally)[..30];
        fs::write(&path, format!("{}\n{cut_off}", line(0, 1000, &tally))).expect("written");
        let (mut record, earlier) = Record::open(&path).expect("there");
        assert_eq!(earlier, Earlier { to: Some(1000), tally });
        record.append(&line(1000, 2000, &tally)).expect("written");
        let (_, earlier) = Record::open(&path).expect("there");
        assert_eq!((earlier.to, earlier.tally.images, earlier.tally.double), (Some(2000), 2000, 380));
    }
}
