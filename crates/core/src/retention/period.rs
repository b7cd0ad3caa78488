//! The periods of the calendar.

use jiff::Zoned;

use super::RuleKind;

/// A kind of period of which each keeps its newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Period {
    /// The period in which a moment lies. Two moments lie in one period when these are equal.
    pub(super) fn of(self, moment: &Zoned) -> String {
        match self {
            // With the offset: in autumn an hour comes twice.
            Self::Hour => moment.strftime("%Y-%m-%d %Hh %:z").to_string(),
            Self::Day => moment.strftime("%Y-%m-%d").to_string(),
            Self::Week => {
                let week = moment.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Month => moment.strftime("%Y-%m").to_string(),
            Self::Quarter => format!("{:04}-Q{}", moment.year(), (moment.month() + 2) / 3),
            Self::Year => format!("{:04}", moment.year()),
        }
    }

    pub(super) fn rule(self) -> RuleKind {
        match self {
            Self::Hour => RuleKind::Hourly,
            Self::Day => RuleKind::Daily,
            Self::Week => RuleKind::Weekly,
            Self::Month => RuleKind::Monthly,
            Self::Quarter => RuleKind::Quarterly,
            Self::Year => RuleKind::Yearly,
        }
    }

    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand from a calendar.
    #[test]
    fn moments_fall_into_the_periods_of_the_calendar() {
        let of = |period: Period, moment: &str| period.of(&moment.parse().unwrap());
        for (moment, week) in [
            ("2026-12-27T23:59:59[UTC]", "2026-W52"),
            ("2026-12-28T00:00:00[UTC]", "2026-W53"),
            ("2026-12-31T12:00:00[UTC]", "2026-W53"),
            ("2027-01-01T12:00:00[UTC]", "2026-W53"),
            ("2027-01-03T23:59:59[UTC]", "2026-W53"),
            ("2027-01-04T00:00:00[UTC]", "2027-W01"),
            ("2024-12-30T00:00:00[UTC]", "2025-W01"),
            ("2021-01-03T00:00:00[UTC]", "2020-W53"),
        ] {
            assert_eq!(of(Period::Week, moment), week, "{moment}");
        }
        for (moment, quarter) in [
            ("2026-01-01T00:00:00[UTC]", "2026-Q1"),
            ("2026-03-31T23:59:59[UTC]", "2026-Q1"),
            ("2026-04-01T00:00:00[UTC]", "2026-Q2"),
            ("2026-09-30T00:00:00[UTC]", "2026-Q3"),
            ("2026-10-01T00:00:00[UTC]", "2026-Q4"),
            ("2026-12-31T00:00:00[UTC]", "2026-Q4"),
        ] {
            assert_eq!(of(Period::Quarter, moment), quarter, "{moment}");
        }
        let berlin = |moment: &str| format!("{moment}[Europe/Berlin]");
        let twice = [berlin("2026-10-25T02:30:00+02:00"), berlin("2026-10-25T02:30:00+01:00")];
        assert_ne!(of(Period::Hour, &twice[0]), of(Period::Hour, &twice[1]));
        assert_eq!(of(Period::Day, &twice[0]), of(Period::Day, &twice[1]));
        assert_eq!(of(Period::Day, "2028-02-29T10:00:00[UTC]"), "2028-02-29");
        assert_eq!(of(Period::Month, "2028-02-29T10:00:00[UTC]"), "2028-02");
        assert_eq!(of(Period::Year, "2028-02-29T10:00:00[UTC]"), "2028");
    }
}
