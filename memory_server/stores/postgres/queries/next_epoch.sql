-- Take the next epoch; no collection has had it.
SELECT nextval('index_epochs');
