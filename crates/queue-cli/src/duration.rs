//! Durations as people write them: `90s`, `5m`, `1h30m`, `250ms`, `7d`.

use std::time::Duration;

/// The longest duration taken: a hundred years, so that no point in time computed from it leaves the calendar.
const MAX: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// The units, from large to small, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DurationError {
    Empty,
    Negative,
    Number,
    Unit,
    Order,
    TooLong,
}

impl std::fmt::Display for DurationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "a duration is needed, such as 90s, 5m or 1h30m",
            Self::Negative => "a duration cannot be negative",
            Self::Number => "a duration is whole numbers with units, such as 90s, 5m or 1h30m",
            Self::Unit => "each number of a duration needs a unit, one of d, h, m, s and ms, as in 90s or 1h30m",
            Self::Order => "the units of a duration go from large to small, each once, as in 1h30m",
            Self::TooLong => "a duration is 100 years at most",
        })
    }
}

impl std::error::Error for DurationError {}

/// Reads a duration.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return Err(DurationError::Number);
        }
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(if unit.is_empty() && !after.is_empty() { DurationError::Number } else { DurationError::Unit });
        }
        let (_, millis) = units.find(|(name, _)| *name == unit).ok_or(DurationError::Order)?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*millis)).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(total)
}

/// Writes a duration shortly, with its two largest units: `1h30m`, `4m12s`, `2.1s`, `40ms`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
        1..10 => {
            let tenths = duration.subsec_millis() / 100;
            if tenths == 0 { format!("{seconds}s") } else { format!("{seconds}.{tenths}s") }
        }
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("36525d", 36_525 * 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        use DurationError::{Empty, Negative, Number, Order, TooLong, Unit};
        for (text, error) in [
            ("", Empty),
            ("-5s", Negative),
            ("5", Unit),
            ("5 s", Number),
            ("1.5h", Number),
            ("h", Number),
            ("5w", Unit),
            ("1h5", Unit),
            ("30m1h", Order),
            ("1m1m", Order),
            ("36526d", TooLong),
            ("99999999999999999999s", TooLong),
            ("18446744073709551615d", TooLong),
            ("5µs", Number),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn writes_shortly() {
        let texts =
            [0, 40, 1_000, 2_170, 59_999, 252_000, 5_400_000, 90_000_000].map(|ms| short(Duration::from_millis(ms)));
        assert_eq!(texts, ["0s", "40ms", "1s", "2.1s", "59s", "4m12s", "1h30m", "1d01h"]);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn near_durations_are_taken(text in "-?[0-9]{0,25}[dhmsx]{0,2}[0-9]{0,25}[a-z]{0,3}") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration <= MAX);
            }
        }

        #[test]
        fn parts_add_up(hours in 0_u64..1_000, minutes in 0_u64..1_000, millis in 0_u64..100_000) {
            let text = format!("{hours}h{minutes}m{millis}ms");
            prop_assert_eq!(parse(&text), Ok(Duration::from_millis(hours * 3_600_000 + minutes * 60_000 + millis)));
        }
    }
}
