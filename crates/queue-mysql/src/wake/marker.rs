//! The statement that sleeps, and how the process list is asked for it. Names are 1 to 64 of `A-Z a-z 0-9 . _ -`, so that
//! none of them ends a comment or a quote.

use std::fmt::Write as _;
use std::time::Duration;

use queue_core::{Due, Queues, Scope};

/// How a statement that sleeps begins.
const MARK: &str = "SELECT /*queue.wake";
/// The longest statement that sleeps: the process list cuts off what is longer than 1,024 bytes.
const BYTES_MAX: usize = 900;

/// The statement that sleeps until somebody wakes a worker of this scope. `name` tells this sleep from all others.
pub(super) fn sleep(name: &str, scope: &Scope, most: Duration) -> String {
    let mut sql = format!("{MARK} {name}");
    let named = |queues: &Queues| match queues {
        Queues::All => None,
        Queues::Named(names) => Some(names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()),
    };
    add(&mut sql, 'q', named(&scope.queues));
    add(&mut sql, 'f', named(&scope.fail_unregistered));
    add(&mut sql, 't', Some(scope.types.iter().map(|name| name.as_str().to_owned()).collect()));
    let _ = write!(sql, " */ SLEEP({})", most.as_secs());
    sql
}

/// Adds names, or a star for all of them; also where there is no room for the names, because one wake-up too many does no harm.
fn add(sql: &mut String, letter: char, names: Option<Vec<String>>) {
    let listed = names.map(|names| names.iter().map(|name| format!(" {letter}:{name}")).collect::<String>());
    match listed.filter(|listed| sql.len() + listed.len() <= BYTES_MAX) {
        Some(listed) => sql.push_str(&listed),
        None => {
            let _ = write!(sql, " {letter}:*");
        }
    }
}

/// What a row of the process list is asked for.
pub(super) enum Whose<'a> {
    /// The sleepers of other stores than this one that are concerned.
    Others { token: &'a str, due: &'a Due },
    /// This very sleep.
    This(&'a str),
}

/// The id of a connection that sleeps, one by chance, as a subquery; NULL when there is none.
pub(super) fn sleeper(table: &str, whose: &Whose<'_>) -> String {
    let whose = match whose {
        Whose::Others { token, due } => format!("LOCATE('{token}', INFO) = 0{}", concerned(due)),
        Whose::This(name) => format!("LOCATE(' {name} ', INFO) > 0"),
    };
    // The column has the name that the account logged in with, which may hold an @ itself.
    let account = "LEFT(USER(), CHAR_LENGTH(USER()) - LOCATE('@', REVERSE(USER())))";
    format!(
        "(SELECT ID FROM {table} WHERE USER = {account} AND DB = DATABASE() AND STATE = 'User sleep' \
         AND INFO LIKE '{MARK} %' AND {whose} ORDER BY RAND() LIMIT 1)"
    )
}

/// As [`Due::concerns`], of what the statement that sleeps says.
fn concerned(due: &Due) -> String {
    let Some(kinds) = due.kinds() else { return String::new() };
    let says = |letter: char, name: &str| {
        format!("(LOCATE(' {letter}:{name} ', INFO) > 0 OR LOCATE(' {letter}:* ', INFO) > 0)")
    };
    let kinds: Vec<_> = kinds
        .map(|(queue, task_type)| {
            let (queue, task_type) = (queue.as_str(), task_type.as_str());
            format!("({} AND ({} OR {}))", says('q', queue), says('t', task_type), says('f', queue))
        })
        .collect();
    format!(" AND ({})", kinds.join(" OR "))
}

#[cfg(test)]
mod tests {
    use queue_core::{QueueName, TaskType};

    use super::*;

    fn scope(queues: Queues, types: Vec<TaskType>) -> Scope {
        Scope { queues, types: types.into(), fail_unregistered: Queues::none() }
    }

    #[test]
    fn a_sleeper_says_what_it_waits_for() {
        let types = vec![TaskType::new("a.b"), TaskType::new("c")];
        let mail = Queues::Named([QueueName::new("mail"), QueueName::DEFAULT].into());
        let most = Duration::from_secs(25);
        assert_eq!(
            sleep("0f.7", &scope(mail, types.clone()), most),
            "SELECT /*queue.wake 0f.7 q:mail q:default t:a.b t:c */ SLEEP(25)"
        );
        let all = Scope { fail_unregistered: Queues::All, ..scope(Queues::All, types) };
        assert_eq!(sleep("0f.7", &all, most), "SELECT /*queue.wake 0f.7 q:* f:* t:a.b t:c */ SLEEP(25)");
    }

    #[test]
    fn many_names_are_all_names() {
        let types = (0..500).map(|number| TaskType::parse(format!("type.{number}")).unwrap()).collect();
        let sql = sleep("0f.7", &scope(Queues::All, types), Duration::from_secs(25));
        assert_eq!(sql, "SELECT /*queue.wake 0f.7 q:* t:* */ SLEEP(25)");
    }
}
