open.rows AS open_rows, CASE WHEN open.rows <= {window} THEN open.ids END AS open_ids, open.behind AS behind_ids
