//! Points in time as people and programs write them: RFC 3339, printed in UTC with microseconds.

use queue_runtime::Timestamp;

/// Reads an RFC 3339 time of any offset; parts of a microsecond are cut off.
pub(crate) fn parse(text: &str) -> Result<Timestamp, &'static str> {
    let at = text
        .parse::<jiff::Timestamp>()
        .map_err(|_| "not a time; write it as RFC 3339 with an offset, such as 2026-01-31T09:00:00Z")?;
    Ok(Timestamp::from_micros(at.as_microsecond()))
}

/// Writes a time in UTC with microseconds. What lies beyond the calendar's end is written as its end.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let last = if at.as_micros() < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let at = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(last);
    format!("{at:.6}")
}

/// The time of the day, `13:51`, and the day before it when that is not the day of `now`.
pub(crate) fn brief(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (rfc3339(at), rfc3339(now));
    let (day, time) = at.split_once('T').unwrap_or((&at, ""));
    let minute = time.get(..5).unwrap_or(time);
    if now.starts_with(day) { minute.to_owned() } else { format!("{day} {minute}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_rfc_3339() {
        let at = parse("2026-01-31T10:00:00.1234567+01:00").unwrap();
        assert_eq!(rfc3339(at), "2026-01-31T09:00:00.123456Z");
        assert_eq!(rfc3339(Timestamp::EPOCH), "1970-01-01T00:00:00.000000Z");
        assert_eq!(&rfc3339(Timestamp::MAX)[..10], "9999-12-30");
        assert_eq!(&rfc3339(Timestamp::from_micros(i64::MIN))[..6], "-00999");
        for text in ["", "tomorrow", "2026-01-31", "2026-01-31T09:00:00", "2026-02-30T09:00:00Z", "1706691600"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn is_brief_on_the_same_day() {
        let now = parse("2026-01-31T10:00:00Z").unwrap();
        assert_eq!(brief(parse("2026-01-31T09:51:00Z").unwrap(), now), "09:51");
        assert_eq!(brief(parse("2026-01-30T09:51:00Z").unwrap(), now), "2026-01-30 09:51");
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn round_trips(micros in -62_135_596_800_000_000_i64..253_402_200_000_000_000) {
            prop_assert_eq!(parse(&rfc3339(Timestamp::from_micros(micros))), Ok(Timestamp::from_micros(micros)));
        }
    }
}
