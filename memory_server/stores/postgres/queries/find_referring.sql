-- Find memories that have links which their payloads made.
-- $1 tenant, $2 ids
SELECT DISTINCT l.source_id FROM links l
WHERE l.tenant = $1 AND l.source_id = ANY ($2::uuid[]) AND l.relation = 'references' AND l.made_by = 'payload';
