"""The two-sample tests on sentences that were changed a little, and on real ones: what each classifier sees."""
