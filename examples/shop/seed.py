"""What the services' databases hold at the start: for each service its tables and rows, as SQL."""

from __future__ import annotations

from typing import Final

SEED: Final[dict[str, str]] = {
    # An order's number is longer than what a double holds exactly, and a total ends in a 0 that a float has
    # not got: both reach the client as they stand here.
    "orders": """
        CREATE TABLE orders (id INTEGER PRIMARY KEY, number TEXT, customer TEXT, placed TEXT, status TEXT,
                             total TEXT, payment TEXT, risk_score REAL);
        CREATE TABLE items (order_id INTEGER, sku TEXT, quantity INTEGER, price TEXT);
        INSERT INTO orders VALUES
            (1, '20261120000000000017', 'c-ada', '2026-11-20T09:12:44Z', 'shipped', '149.80', 'card', 0.02),
            (2, '20261121000000000018', 'c-alan', '2026-11-21T17:40:03Z', 'packing', '12.50', 'bill', 0.11),
            (3, '20261124000000000021', 'c-grace', '2026-11-24T06:01:59Z', 'paid', '1249.00', 'card', 0.64);
        INSERT INTO items VALUES
            (1, 'LAMP-1', 2, '49.90'), (1, 'BULB-9', 5, '10.00'), (2, 'BOOK-4', 1, '12.50'),
            (3, 'DESK-2', 1, '899.00'), (3, 'LAMP-1', 4, '49.90'), (3, 'CHAIR-7', 1, '120.40'),
            (3, 'BULB-9', 3, '10.00');
    """,
    "customers": """
        CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT, email TEXT, tier TEXT, since TEXT,
                                offers INTEGER, credit_limit TEXT);
        INSERT INTO customers VALUES
            ('c-ada', 'Ada Lovelace', 'ada@example.com', 'gold', '2019-12-10', 1, '5000.00'),
            ('c-alan', 'Alan Turing', 'alan@example.com', 'basic', '2024-06-23', 0, '500.00'),
            ('c-grace', 'Grace Hopper', 'grace@example.com', 'silver', '2022-12-09', 1, '2500.00');
    """,
    "products": """
        CREATE TABLE products (sku TEXT PRIMARY KEY, title TEXT, brand TEXT, description TEXT, grams INTEGER);
        INSERT INTO products VALUES
            ('LAMP-1', 'Desk lamp "Noon"', 'Lumen', 'Folds flat; the light of a window to the north.', 1200),
            ('BULB-9', 'LED bulb, 9 W', 'Lumen', 'Warm white, E27, dimmable.', 60),
            ('BOOK-4', 'On Computable Numbers', 'Annotated Press', 'The paper of 1936, line by line.', 420),
            ('DESK-2', 'Standing desk', 'Upright', 'Oak, 160 x 80 cm, two motors.', 48000),
            ('CHAIR-7', 'Stool "Perch"', 'Upright', 'For desks that stand.', 7400);
    """,
    "stock": """
        CREATE TABLE stock (sku TEXT PRIMARY KEY, pieces INTEGER);
        INSERT INTO stock VALUES
            ('LAMP-1', 14), ('BULB-9', 900), ('BOOK-4', 0), ('DESK-2', 3), ('CHAIR-7', 1);
    """,
    "reviews": """
        CREATE TABLE reviews (sku TEXT, stars INTEGER, text TEXT);
        INSERT INTO reviews VALUES
            ('LAMP-1', 5, 'Reads itself.'), ('LAMP-1', 4, 'Short cable.'), ('BULB-9', 5, 'Bright.'),
            ('BOOK-4', 5, 'Halts.'), ('DESK-2', 3, 'Heavy to carry up.'), ('DESK-2', 5, 'Stands.'),
            ('CHAIR-7', 4, 'Hard at first.');
    """,
    "recommendations": """
        CREATE TABLE recommendations (customer TEXT, sku TEXT, title TEXT, because TEXT);
        INSERT INTO recommendations VALUES
            ('c-ada', 'BOOK-4', 'On Computable Numbers', 'You read by lamps like this'),
            ('c-ada', 'CHAIR-7', 'Stool "Perch"', 'Others with a lamp sit'),
            ('c-grace', 'BOOK-4', 'On Computable Numbers', 'You look at compilers'),
            ('c-grace', 'BULB-9', 'LED bulb, 9 W', 'Four lamps want bulbs');
    """,
}
