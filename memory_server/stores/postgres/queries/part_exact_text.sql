-- The memories of which this is the whole text.
(SELECT i.memory_id FROM memory_items i
 WHERE i.tenant = gate.tenant AND i.text_key = {key} AND i.text = {text} AND NOT i.deleted ORDER BY i.memory_id LIMIT 50)
