//! Tables for people.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table, presets};

/// A table without lines, whose columns are as wide as they must be.
#[derive(Debug)]
pub(crate) struct Columns {
    table: Table,
    right: Vec<bool>,
}

impl Columns {
    /// A table with these headings; those that begin with `>` are of columns of numbers.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let mut columns = Self { table: Table::new(), right };
        columns.table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let header = columns.cells(headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()));
        columns.table.set_header(header);
        for column in columns.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        columns
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = self.cells(cells);
        self.table.add_row(cells);
    }

    fn cells(&self, cells: impl IntoIterator<Item = String>) -> Row {
        let cells = cells.into_iter().zip(&self.right).map(|(text, right)| {
            Cell::new(text).set_alignment(if *right { CellAlignment::Right } else { CellAlignment::Left })
        });
        Row::from(cells.collect::<Vec<_>>())
    }

    /// The lines, without white space at their ends.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.table.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut columns = Columns::new(&["QUEUE", ">READY", "NOTE"]);
        columns.row(["mail", "12,041", ""].map(str::to_owned));
        columns.row(["a.long.name", "1", "paused"].map(str::to_owned));
        assert_eq!(
            columns.lines(),
            ["QUEUE         READY  NOTE", "mail         12,041", "a.long.name       1  paused"]
        );
    }
}
