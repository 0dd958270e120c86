create table customers (id int primary key, name text not null, email text not null, city text not null);
create table orders (id int primary key, customer int not null references customers, placed date not null, total numeric(8,2) not null, note text);
insert into customers
select n, (array['Ada','Grace','Linus','Margaret','Edsger','Barbara'])[1 + n % 6] || ' ' || n,
       'customer' || n || '@example.org', (array['Oslo','Lyon','Porto','Graz'])[1 + n % 4]
from generate_series(1, 200) n;
insert into orders
select n, 1 + n % 200, date '2026-01-01' + n % 300, (n * 37 % 9000) / 10.0, case when n % 50 = 0 then 'gift' end
from generate_series(1, 2000) n;
create role app login password 'the-targets-own-password';
grant select, insert, update, delete on customers, orders to app;
