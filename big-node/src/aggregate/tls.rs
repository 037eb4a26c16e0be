//! A report of TLS, as it is written (RFC 8460 §4).

use jiff::Timestamp;
use serde::Serialize;
use shared::address::{Address, Domain};
use shared::aggregate::{FailureCount, PolicyCounts, PolicyKind, ResultType};
use shared::id::MessageId;

/// The report (RFC 8460 §4.4).
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Document<'a> {
    organization_name: &'a str,
    date_range: DateRange,
    contact_info: String,
    report_id: String,
    policies: Vec<Policy<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Policy<'a> {
    policy: Published<'a>,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<Failure<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Published<'a> {
    policy_type: PolicyKind,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    policy_string: &'a [String],
    policy_domain: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mx_host: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Failure<'a> {
    result_type: ResultType,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_mta_ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ip: Option<&'a str>,
    failed_session_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason_code: Option<&'a str>,
}

impl<'a> Document<'a> {
    /// The report `id` of `from`'s domain about the time from the first to the last of these seconds since 1970.
    pub fn new(
        from: &'a Address,
        id: MessageId,
        (begin, end): (u64, u64),
        counts: &'a [PolicyCounts],
    ) -> Self {
        Self {
            organization_name: from.domain().as_str(),
            date_range: DateRange { start_datetime: moment(begin), end_datetime: moment(end) },
            contact_info: from.to_string(),
            report_id: format!("{id}@{}", from.domain()),
            policies: counts.iter().map(Policy::of).collect(),
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl<'a> Policy<'a> {
    fn of(counts: &'a PolicyCounts) -> Self {
        Self {
            policy: Published {
                policy_type: counts.policy.kind,
                policy_string: &counts.policy.text,
                policy_domain: &counts.policy.domain,
                mx_host: &counts.policy.hosts,
            },
            summary: Summary {
                total_successful_session_count: counts.successes,
                total_failure_session_count: counts.failures,
            },
            failure_details: counts.details.iter().map(Failure::of).collect(),
        }
    }
}

impl<'a> Failure<'a> {
    fn of(FailureCount { failure, count }: &'a FailureCount) -> Self {
        Self {
            result_type: failure.result,
            sending_mta_ip: failure.sending_ip.as_deref(),
            receiving_mx_hostname: failure.host.as_deref(),
            receiving_ip: failure.receiving_ip.as_deref(),
            failed_session_count: *count,
            failure_reason_code: failure.reason.as_deref(),
        }
    }
}

/// A moment, in seconds since 1970, as RFC 3339 writes it.
pub fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// What the report says, to a person.
pub fn summary(
    own: &Domain,
    domain: &Domain,
    (begin, _): (u64, u64),
    counts: &[PolicyCounts],
    left_out: u64,
) -> String {
    let sum = |of: fn(&PolicyCounts) -> u64| counts.iter().map(of).fold(0, u64::saturating_add);
    let day = moment(begin);
    let mut text = format!(
        "This is a report of TLS (RFC 8460) by {own} about the mail hosts of {domain},\non {} in UTC.\n\n\
         Sessions that were as they should be: {}\nSessions that were not:              {}\n",
        day.get(..10).unwrap_or(&day),
        sum(|counts| counts.successes),
        sum(|counts| counts.failures),
    );
    if left_out > 0 {
        text += &format!("Sessions that are in neither number: {left_out}\n");
    }
    text
}
