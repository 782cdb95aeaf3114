//! How a value says a port: as a number, as an address, or by a variable.

/// How a text ends that says a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending<'a> {
    Number(u16),
    Reference {
        text: &'a str,
        name: &'a str,
        default: Option<&'a str>,
    },
    None,
}

/// How a value ends that says a port: `8000`, `0.0.0.0:8000`, `http://[::]:8000/`, `$(PORT)`, `:${PORT:-8000}`.
pub(super) fn ending(value: &str, in_a_shell: bool) -> Ending<'_> {
    let value = value.strip_suffix('/').unwrap_or(value);
    let digits = value.len()
        - value
            .trim_end_matches(|sign: char| sign.is_ascii_digit())
            .len();
    let (before, number) = value.split_at(value.len() - digits);
    let is_address = before.ends_with(':');
    if (before.is_empty() || is_address)
        && before != "::"
        && let Ok(number) = number.parse()
    {
        return Ending::Number(number);
    }
    let reference = |open: &str, close: &str| {
        let inner = value.strip_suffix(close)?;
        let at = inner.rfind(open)?;
        let (before, name) = (&inner[..at], &inner[at + open.len()..]);
        let (name, default) = match name.split_once('-') {
            Some((name, default)) if in_a_shell => (name.trim_end_matches(':'), Some(default)),
            _ => (name, None),
        };
        let is_name = name
            .chars()
            .all(|sign| sign.is_ascii_alphanumeric() || sign == '_');
        let is_whole = before.is_empty() || before.ends_with(':');
        (is_name && !name.is_empty() && is_whole).then_some(Ending::Reference {
            text: &value[at..],
            name,
            default,
        })
    };
    let shell = || reference("${", "}").or_else(|| reference("$", ""));
    let found = reference("$(", ")").or_else(|| in_a_shell.then(shell).flatten());
    found.unwrap_or(Ending::None)
}

pub(super) fn is_host(text: &str) -> bool {
    let sign = |sign: char| sign.is_ascii_alphanumeric() || ".-*[]".contains(sign);
    !text.is_empty()
        && (text.chars().all(sign)
            || text == "::"
            || (text.starts_with('[') && text.ends_with(']')))
}

/// Where a text refers to a variable: `$(NAME)`, and in a shell `$NAME` and `${NAME..}`. `$NAMELY` is another one.
pub(in crate::inject) fn references<'a>(
    text: &'a str,
    name: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(name).filter_map(move |(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let is_whole = !after.starts_with(|sign: char| sign.is_ascii_alphanumeric() || sign == '_');
        let open = ["$(", "${", "$"]
            .iter()
            .find(|open| before.ends_with(**open))?;
        let is_closed = *open != "$(" || after.starts_with(')');
        (is_whole && is_closed).then_some(at - open.len())
    })
}

/// Whether a text has a number that is no part of a longer one.
pub(super) fn says_number(text: &str, number: u16) -> bool {
    let number = number.to_string();
    let digit = |sign: char| sign.is_ascii_digit();
    text.match_indices(&number).any(|(at, _)| {
        !text[..at].ends_with(digit) && !text[at + number.len()..].starts_with(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_its_port_at_its_end() {
        let reference = |text, name, default| Ending::Reference {
            text,
            name,
            default,
        };
        let rows = [
            ("8000", true, Ending::Number(8000)),
            (":8000", true, Ending::Number(8000)),
            ("0.0.0.0:8000", true, Ending::Number(8000)),
            ("http://[::]:8000/", true, Ending::Number(8000)),
            ("0.0.0.0", true, Ending::None),
            ("::1", true, Ending::None),
            ("unix:/tmp/s.sock", true, Ending::None),
            ("99999", true, Ending::None),
            ("$(PORT)", false, reference("$(PORT)", "PORT", None)),
            ("0.0.0.0:$(PORT)", false, reference("$(PORT)", "PORT", None)),
            ("$PORT", false, Ending::None),
            ("$PORT", true, reference("$PORT", "PORT", None)),
            (":${PORT}", true, reference("${PORT}", "PORT", None)),
            (
                "${PORT:-8000}",
                true,
                reference("${PORT:-8000}", "PORT", Some("8000")),
            ),
            ("a$(PORT)", false, Ending::None),
        ];
        for (value, in_a_shell, expected) in rows {
            assert_eq!(ending(value, in_a_shell), expected, "{value}");
        }
    }
    #[test]
    fn a_reference_and_a_number_are_whole() {
        for (text, expected) in [
            ("--port $(PORT)", true),
            ("--port=$PORT", true),
            ("${PORT:-1}", true),
            ("$PORTAL", false),
            ("${PORT_2}", false),
            ("$(PORT", false),
            ("$(MY_PORT)", false),
            ("PORT", false),
        ] {
            let found = references(text, "PORT").next().is_some();
            assert_eq!(found, expected, "{text}");
        }
        for (text, expected) in [
            ("8000", true),
            ("port=8000)", true),
            ("-p8000", true),
            ("18000", false),
            ("80001", false),
        ] {
            assert_eq!(says_number(text, 8000), expected, "{text}");
        }
    }
}
