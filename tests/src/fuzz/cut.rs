//! A stream of octets as it may arrive: in pieces, and at once only what may come at once.

/// The stream in pieces of rising length, 1 to `cuts`, again and again: from single octets to a few headers. With
/// `cuts` 0 it is whole.
pub(super) fn pieces(stream: &[u8], cuts: u8) -> Vec<&[u8]> {
    if cuts == 0 {
        return vec![stream];
    }
    let (mut pieces, mut left) = (Vec::new(), stream);
    for length in (1..=usize::from(cuts)).cycle() {
        let (piece, rest) = left.split_at(length.min(left.len()));
        pieces.push(piece);
        left = rest;
        if left.is_empty() {
            break;
        }
    }
    pieces
}

/// The stream cut behind each line after which its sender waits. A line comes with its LF, if it has one.
pub(super) fn flights(stream: &[u8], waits: impl Fn(&[u8]) -> bool) -> Vec<&[u8]> {
    let (mut flights, mut begin, mut end) = (Vec::new(), 0, 0);
    for line in stream.split_inclusive(|octet| *octet == b'\n') {
        end += line.len();
        if waits(line) {
            flights.push(&stream[begin..end]);
            begin = end;
        }
    }
    flights.push(&stream[begin..]);
    flights
}

/// Whether a line's last word is this one, in upper case.
pub(super) fn ends_with(line: &[u8], word: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.len() >= word.len() && line[line.len() - word.len()..].eq_ignore_ascii_case(word)
}

/// Whether these octets are somewhere in the stream.
pub(super) fn is_in(stream: &[u8], octets: &[u8]) -> bool {
    octets.is_empty() || stream.windows(octets.len()).any(|window| window == octets)
}

/// Whether this word, in upper case, is somewhere in the stream, in any case.
pub(super) fn is_said(stream: &[u8], word: &str) -> bool {
    stream.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether these octets are printable ASCII, as the lines of our replies are.
pub(super) fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|octet| matches!(octet, b' '..=b'~'))
}
