//! The conversation with the API server: the exact requests of the election and of scaling, in their order, and what is
//! made of each answer. Time is paused, so a request that comes two seconds later comes at once, and exactly then.

mod api_server;
mod events;
mod leadership;
mod ownership;
mod scaling;
mod survey;
mod webhook;
