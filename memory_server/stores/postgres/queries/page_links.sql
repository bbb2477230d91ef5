-- Read a page of a memory's links; its parts are part_page.sql: what does not fade in the order of an index, directions
-- and ties apart, and all that fades. The reader merges them.
-- $1 tenant, $2 id, $3 relations or NULL, $4 least strength, $5 links a part, of the last link: $6 strength,
-- $7 other end, $8 relation, $9 whether it comes in
{parts};
