-- Who may read the views and nothing else. Roles are the whole server's: another database may have made it, or be making
-- it at this moment; and who migrates need not be allowed to make any.
DO $$
BEGIN
    BEGIN
        CREATE ROLE nightrate_analyst NOLOGIN;
        COMMENT ON ROLE nightrate_analyst IS 'Reads what Nightrate''s batches cost, and nothing else.';
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
            RAISE WARNING 'the role nightrate_analyst cannot be made by %: see docs/analytics.md', current_user;
    END;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'nightrate_analyst') THEN
        -- Everything in this schema is a view, and is read with the rights of who owns it.
        GRANT USAGE ON SCHEMA cost TO nightrate_analyst;
        GRANT SELECT ON ALL TABLES IN SCHEMA cost TO nightrate_analyst;
    END IF;
END $$;
