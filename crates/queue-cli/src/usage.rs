//! Reading the command line, and saying what is wrong with it in our own form.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Cli;
use crate::failure::{self, Code, Failure};

/// The command line; or the exit code, when there is nothing left to do.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(io::stdout(), "{error}");
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(io::stderr(), "{error}");
            ExitCode::from(Code::Usage as u8)
        }
        _ => {
            failure::tell(&explain(&error, &std::env::args().collect::<Vec<_>>()));
            ExitCode::from(Code::Usage as u8)
        }
    })
}

/// What clap says, as one line; and what it suggests, or the help of the command.
fn explain(error: &clap::Error, words: &[String]) -> Failure {
    let rendered = error.to_string();
    let said = rendered.split("\n\n").next().unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let suggested = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg].iter().find_map(|kind| {
        match error.get(*kind)? {
            ContextValue::String(text) => Some(text.clone()),
            ContextValue::Strings(texts) => texts.first().cloned(),
            _ => None,
        }
    });
    let help = format!("queue {}--help", command_path(words));
    let hint = match suggested {
        // What is spelt alike need not be what was meant.
        Some(word) if word.starts_with('-') => format!("{word}, or {help}"),
        Some(word) => format!("queue {word}"),
        None => help,
    };
    Failure::usage(said).hint(hint)
}

/// The commands among the words, so that the right help is named: `task list `.
fn command_path(words: &[String]) -> String {
    use clap::CommandFactory as _;

    let mut command = Cli::command();
    let mut path = String::new();
    for word in words.iter().skip(1) {
        let Some(found) = command.get_subcommands().find(|command| command.get_name() == word) else { continue };
        path.push_str(word);
        path.push(' ');
        command = found.clone();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        let words = line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        explain(&Cli::try_parse_from(&words).unwrap_err(), &words).to_string()
    }

    #[test]
    fn one_line_says_what_and_one_what_helps() {
        assert_eq!(
            said("queue enqueue a --priority 1000"),
            "error: invalid value '1000' for '--priority <N>': a priority of 1000 is out of range; use -100 to 100, the higher first\n  \
             try: queue enqueue --help"
        );
        assert_eq!(said("queue stat"), "error: unrecognized subcommand 'stat'\n  try: queue stats");
        assert_eq!(
            said("queue task list --stauts failed"),
            "error: unexpected argument '--stauts' found\n  try: --status, or queue task list --help"
        );
        assert_eq!(
            said("queue task show"),
            "error: the following required arguments were not provided: <ID>\n  try: queue task show --help"
        );
    }

    #[test]
    fn a_misplaced_url_keeps_its_password() {
        let said = said("queue mysql://app:secret@db/shop stats");
        assert!(!said.contains("secret"), "{said}");
    }
}
