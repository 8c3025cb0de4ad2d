//! Cookie dates in all their formats (RFC 6265 section 5.1.1).

use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Parses a cookie date. Dates before 1970 become 1970.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for word in text.split(is_delimiter).filter(|word| !word.is_empty()) {
        if time.is_none() && clock(word).is_some() {
            time = clock(word);
        } else if day.is_none() && number(word, 1, 2).is_some() {
            day = number(word, 1, 2);
        } else if month.is_none() && month_of(word).is_some() {
            month = month_of(word);
        } else if year.is_none() {
            year = number(word, 2, 4);
        }
    }
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let ((hour, minute, second), day, month) = (time?, i8::try_from(day?).ok()?, month?);
    let date = DateTime::new(year, month, day, hour, minute, second, 0).ok().filter(|_| year >= 1601)?;
    let seconds = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn is_delimiter(c: char) -> bool {
    matches!(c, '\t' | ' '..='/' | ';'..='@' | '['..='`' | '{'..='~')
}

/// `hh:mm:ss`, followed by anything but a digit.
fn clock(word: &str) -> Option<(i8, i8, i8)> {
    let mut parts =
        word.splitn(3, ':').map(|part| number(part, 1, 2).and_then(|part| i8::try_from(part).ok()));
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn month_of(word: &str) -> Option<i8> {
    let beginning = word.get(..3)?.to_ascii_lowercase();
    let at = MONTHS.iter().position(|month| *month == beginning)?;
    i8::try_from(at + 1).ok()
}

/// The number at the beginning of `word`, if it has between `least` and `most` digits.
fn number(word: &str, least: usize, most: usize) -> Option<i16> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    word.get(..digits).filter(|_| (least..=most).contains(&digits))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse(text).map(|date| date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn dates_are_read_in_all_usual_spellings() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06-Nov-1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(text), Some(784_111_777), "{text}");
        }
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Fri, 31 Dec 1900 23:59:59 GMT"), Some(0));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "tomorrow",
            "32 Jan 2020 00:00:00",
            "1 Jan 2020 24:00:00",
            "1 Jan 2020",
            "30 Feb 2020 0:0:0",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".*|[0-9A-Za-z: ,-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
