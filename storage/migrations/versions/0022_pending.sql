-- What is posted is pending until the leader has summed it up. A row each, of its own: whoever posts waits for nobody,
-- which one sum kept by all of them would make them do; and a moment's view finds each transaction in one of both places.
CREATE FUNCTION nightrate.await_sums_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO nightrate.cost_pending (transaction_id) SELECT id FROM added;
    RETURN NULL;
END $$;

CREATE TRIGGER transactions_pending AFTER INSERT ON nightrate.transactions REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION nightrate.await_sums_v1();

INSERT INTO nightrate.cost_pending (transaction_id) SELECT id FROM nightrate.transactions;
