"""The benchmark of verifiable rewards: can a reward be raised without text that nobody would write?"""
